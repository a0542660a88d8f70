#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Exports a trained model as a folder that runs elsewhere, and checks every file in it against the source."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tral_monai.errors import TralError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="folder of the bundle that made the checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="such as runs/x/model.pt")
    parser.add_argument("--output_dir", type=Path, help="folder to make; must not exist")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="check a copy of an exported folder instead")
    parser.add_argument("--formats", default="", help="comma-separated: onnx, openvino, torchscript, pt2")
    parser.add_argument("--exit_gate", type=Path, help="early-exit gate of a tissue classifier")
    parser.add_argument(
        "--auxiliary", default="auto", help="auxiliary detector of a nucleus detector; '' for none (default: auto)"
    )
    parser.add_argument("--slide", type=Path, action="append", default=[], help="check on its tissue too; repeatable")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel of slides that record none")
    parser.add_argument("--tiles", type=int, default=64, help="drawn tiles, and tiles of each slide, to check on")
    parser.add_argument("--min_agreement", type=float, default=0.99, help="share of classes that must agree")
    parser.add_argument("--max_difference", type=float, default=1e-3, help="largest difference of a probability")
    parser.add_argument("--tile_px", type=int, help="side of the tile that a detector's ONNX file takes")
    parser.add_argument("--model_version", help="for metadata.json")
    parser.add_argument("--data_source", help="what the model was trained on, for metadata.json")
    options = parser.parse_args(arguments)
    missing = [name for name in ("bundle", "checkpoint", "output_dir") if getattr(options, name) is None]
    if missing and options.verify is None:
        parser.error(f"give --{', --'.join(missing)}, or --verify FOLDER")
    try:
        from tral_monai.inference.export.bundle_folder import export_bundle
        from tral_monai.inference.export.check_export import Floors
        from tral_monai.inference.export.verify_export import verify_export

        if options.verify is not None:
            verify_export(options.verify)
            return 0
        export_bundle(
            options.bundle,
            options.checkpoint,
            options.output_dir,
            formats=[name.strip() for name in options.formats.split(",") if name.strip()],
            auxiliary=options.auxiliary,
            exit_gate=options.exit_gate,
            slides=options.slide,
            mpp=options.mpp,
            tiles=options.tiles,
            floors=Floors(options.min_agreement, options.max_difference),
            tile_px=options.tile_px,
            version=options.model_version,
            data_source=options.data_source,
        )
    except TralError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
