# SPDX-License-Identifier: Apache-2.0
"""An exported folder on another machine: are its files whole, and do they compute there what they did at the source?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tral_monai.errors import MissingExtraError
from tral_monai.inference.export.bundle_kind import load_deployable
from tral_monai.inference.export.check_export import CHECKPOINT, TILES_NAME, Floors, answers_of
from tral_monai.inference.export.sums import check_sums


def verify_export(
    folder: str | os.PathLike[str], *, floors: Floors | None = None, report: Callable[[str], None] = print
) -> list[str]:
    """Check every file's hash, then run the checkpoint and each format on the tiles that came along.

    Args:
        folder: what :func:`~tral_monai.inference.export.bundle_folder.export_bundle` wrote.
        floors: what must be reached; None takes those of the export.
        report: is told a line per file.

    Returns:
        What was run: ``checkpoint`` and formats. A format whose packages are not installed is reported and left out.

    Raises:
        ConfigError: the folder is no exported one.
        CheckpointError: a file is missing or changed.
        AgreementError: a file does not compute here what the source did.
    """
    root = Path(folder)
    report(f"{len(check_sums(root))} files are as they were exported")
    record = json.loads((root / "export.json").read_text(encoding="utf-8"))
    if floors is None:
        floors = Floors(record["check"]["min_agreement"], record["check"]["max_difference"])
    deployable = load_deployable(root, root / "models" / "model.pt", tile_px=record["tile_px"])
    with np.load(root / "models" / TILES_NAME) as kept:
        expected = {name: kept[name] for name in kept.files if name != "image"}
        tiles = kept["image"]
    run = []
    for name in (CHECKPOINT, *record["formats"]):
        try:
            if name == CHECKPOINT:
                answers = deployable.reference(tiles)
            else:
                answers = answers_of(name, deployable, root / "models", tiles)
        except MissingExtraError as error:
            report(f"{name}: not run, {error}")
            continue
        agreement = deployable.compare(expected, answers)
        report(
            f"{name}: {100 * agreement.class_agreement:.2f} % of {agreement.tiles} classes are the source's, largest "
            f"difference of a probability {agreement.largest_probability_difference:.2g}"
        )
        floors.require(name, agreement)
        run.append(name)
    return run
