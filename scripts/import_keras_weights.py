#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Turns the original TRI-CNN's Keras weights (.h5) into a checkpoint of this package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tral_monai.errors import TralError
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.keras_import import import_keras_weights


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="Keras HDF5 file")
    parser.add_argument("checkpoint", type=Path, help="file to write, .pt")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="outputs in order (default: the paper's six)")
    parser.add_argument("--branch-order", nargs=3, metavar="NAME", help="branches of 40x, 10x and 2.5x in the file")
    options = parser.parse_args(arguments)
    try:
        network = import_keras_weights(options.weights, classes=options.classes, branch_order=options.branch_order)
        save_checkpoint(options.checkpoint, network)
    except TralError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    parameters = sum(p.numel() for p in network.parameters())
    print(f"wrote {options.checkpoint}: {parameters:,} parameters, classes {', '.join(network.classes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
