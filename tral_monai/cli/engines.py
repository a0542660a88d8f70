# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai engines``: which inference engines run on this machine, why not the others, and how fast."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.epilog = (
        "An engine is chosen with --engine and --precision of a bundle's inference. --measure runs a small random "
        "network; large ones gain more from bf16 and less from anything else, so measure with your own too."
    )
    parser.add_argument("--device", default=None, help="cpu or cuda (cuda where there is one)")
    parser.add_argument("--measure", action="store_true", help="time each of them (about a minute; all cores of torch)")


def run(arguments: argparse.Namespace) -> int:
    """Print the table.

    Args:
        arguments: from the command's parser.

    Returns:
        0.
    """
    import torch

    from tral_monai.errors import TralError
    from tral_monai.inference.engines.available import list_engines
    from tral_monai.inference.engines.speed import small_network_speed

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("engine", "precision", "here", title=f"inference engines on {device}", title_justify="left")
    if arguments.measure:
        table.add_column("tiles/s", justify="right")
        table.add_column("x", justify="right")
    reference: float | None = None
    for row in list_engines(device):
        here = row.reason or f"yes{', ' + row.note if row.note else ''}"
        speed: float | None = None
        if arguments.measure and row.reason is None:
            try:
                speed = small_network_speed(row.name, row.precision, device=device)
            except TralError as error:
                here = str(error)
            reference = reference or speed
        cells = ["", ""] if speed is None or reference is None else [f"{speed:.0f}", f"{speed / reference:.2f}"]
        table.add_row(row.name, row.precision, escape(here), *(cells if arguments.measure else []))
    Console(markup=False, highlight=False).print(table)
    return 0
