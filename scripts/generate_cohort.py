# SPDX-License-Identifier: Apache-2.0
"""Make the generated cohort: pyramidal slides of two hospitals with QuPath annotations, and their cohort.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from tral_monai.data.generated.cohort import PRESETS, generate_cohort
from tral_monai.errors import TralError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write cohort.csv, slides/ and annotations/")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pixels (default: %(default)s)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default", help="size (default: %(default)s)")
    parser.add_argument("--slides-per-hospital", type=int, help="slides, and patients, of each of the two hospitals")
    parser.add_argument("--size-px", type=int, help="edge of the slides at full resolution, in pixels")
    parser.add_argument("--shift", action="store_true", help="hospital A is train; hospital B is pool, val and test")
    parser.add_argument("--workers", type=int, default=2, help="slides made at the same time (default: %(default)s)")
    args = parser.parse_args()
    try:
        table = generate_cohort(
            args.folder,
            seed=args.seed,
            preset=args.preset,
            slides_per_hospital=args.slides_per_hospital,
            size_px=args.size_px,
            shift=args.shift,
            workers=args.workers,
            progress=lambda done, total: print(f"slide {done} of {total}", flush=True),
        )
    except TralError as error:
        parser.error(str(error))
    print(table)


if __name__ == "__main__":
    main()
