# SPDX-License-Identifier: Apache-2.0
"""Make generated fields of nuclei: H&E-like PNG files with boxes of seven classes in COCO's JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from tral_monai.data.generated.fields import generate_fields
from tral_monai.errors import TralError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write annotations.json and images/")
    parser.add_argument("--n-fields", type=int, default=60, help="fields in all (default: %(default)s)")
    parser.add_argument("--field-px", type=int, default=512, help="edge of a field in pixels (default: %(default)s)")
    parser.add_argument("--mpp", type=float, default=0.25, help="micrometres per pixel (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pixels (default: %(default)s)")
    parser.add_argument("--hospitals", type=int, default=2, help="1 or 2, told by their stain (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=10, help="patients in all (default: %(default)s)")
    args = parser.parse_args()
    try:
        annotations = generate_fields(
            args.folder,
            n_fields=args.n_fields,
            field_px=args.field_px,
            mpp=args.mpp,
            seed=args.seed,
            hospitals=args.hospitals,
            patients=args.patients,
            progress=lambda done, total: print(f"field {done} of {total}", flush=True),
        )
    except TralError as error:
        parser.error(str(error))
    print(annotations)


if __name__ == "__main__":
    main()
