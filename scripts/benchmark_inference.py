# SPDX-License-Identifier: Apache-2.0
"""Measure whole-slide inference: a null network beside the peers, engines, dense context, detector, start-up, GPU.

    python scripts/benchmark_inference.py --work bench --parts null startup memory --json null.json \
        --peer lazyslide=peers/lazyslide/bin/python --peer tiatoolbox=peers/tiatoolbox/bin/python
    python scripts/benchmark_inference.py --work bench --parts engines dense detector --tiles 256 --json engines.json
    python scripts/benchmark_inference.py --work bench --parts gpu --threads 0 --json gpu.json

Plans take turns, each round's ratio is to the baseline of the same round, and medians count. Rates are per CPU second
(all threads of the process and its children) and per second of the wall clock. Slides are in the page cache. A peer is
a Python that has it installed from its package; its program is in ``benchmark_peers``. Tables go to standard output as
Markdown, progress to standard error, and the JSON file is rewritten after every part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_PARTS = ("null", "memory", "startup", "engines", "dense", "detector", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--work", type=Path, help="folder for slides and weights made here, kept (default: temporary)")
    parser.add_argument("--slide", type=Path, help="a slide to run on (default: a generated one)")
    parser.add_argument("--mpp", type=float, help="its micrometres per pixel, where it records none")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="a peer of the null part")
    parser.add_argument("--checkpoint", type=Path, help="a trained TriCNN (default: random convolutions)")
    parser.add_argument("--tiles", type=int, default=256, help="triplets per round and plan (default: %(default)s)")
    parser.add_argument("--images", type=int, default=8, help="fields per round of the detector (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 0: as the libraries choose (default: 1)")
    parser.add_argument("--batch-size", type=int, default=64, help="tiles per forward pass (default: %(default)s)")
    parser.add_argument("--side", type=int, default=20480, help="of the generated slide, px (default: %(default)s)")
    parser.add_argument("--backbone", default="vgg16", help="of the TriCNN made here (default: %(default)s)")
    given = parser.parse_args()
    if given.threads:  # before anything imports a library with threads of its own
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        given.work = given.work or Path(folder)
        given.work.mkdir(parents=True, exist_ok=True)
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run the parts one after the other; one that fails is reported, and the others go on."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from benchmark_parts.common import Options, machine, say

    values = {key: value for key, value in vars(given).items() if key not in ("parts", "json", "peer")}
    peers = dict(peer.split("=", 1) for peer in given.peer)
    options = Options(**values, peers=peers)
    figures: dict[str, Any] = {"machine": machine(options), "parts": {}}
    print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()) + "\n")
    failed = []
    for part in given.parts:
        say(f"{part}:")
        started = time.perf_counter()
        try:
            tables = importlib.import_module(f"benchmark_parts.{part}").run(options)
        except Exception as error:  # an hour of figures must not be lost to one part
            failed.append(part)
            say(f"  {part} failed: {type(error).__name__}: {error}")
            figures["parts"][part] = {"error": f"{type(error).__name__}: {error}"}
        else:
            for table in tables:
                print(table.markdown(), flush=True)
            figures["parts"][part] = {
                "seconds": round(time.perf_counter() - started, 1),
                "tables": [{"title": table.title, "rows": table.rows, "notes": table.notes} for table in tables],
            }
        if given.json is not None:
            given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
