# SPDX-License-Identifier: Apache-2.0
"""What a detector says about itself: its classes and their colours, the pixels that it was trained on, its limits."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.palette import Rgb, class_colours


@dataclasses.dataclass(frozen=True)
class DetectorFacts:
    """From a detector's contract.

    Attributes:
        classes: names of its classes.
        colours: a colour for each: the contract's where it has one.
        fov_mpp: micrometres per pixel that it was trained at.
        fov_px: side of the fields of view that it was trained on.
        max_detections: most boxes that it gives per tile.
    """

    classes: tuple[str, ...]
    colours: dict[str, Rgb]
    fov_mpp: float
    fov_px: int
    max_detections: int


def detector_facts(network: torch.nn.Module) -> DetectorFacts:
    """Read a detector's contract.

    Args:
        network: a detector.

    Raises:
        ConfigError: it has none, or one of another kind of network.
    """
    contract = getattr(network, "contract", None)
    if contract is None:
        raise ConfigError(
            f"a nucleus detector must say what it was trained on, but {type(network).__name__} has no contract; load "
            "it from a checkpoint of OpenSetRCNN"
        )
    values: dict[str, Any] = contract.state_dict()
    settings: dict[str, Any] = values.get("settings", {})
    missing = [name for name in ("classes", "class_colors") if name not in values]
    missing += [name for name in ("fov_mpp", "fov_px", "max_detections") if name not in settings]
    if missing:
        raise ConfigError(
            f"the contract of {type(network).__name__} lacks {missing}: it is no nucleus detector; give a checkpoint "
            "of OpenSetRCNN"
        )
    classes = tuple(str(name) for name in values["classes"])
    return DetectorFacts(
        classes=classes,
        colours=class_colours(classes, {n: c for n, c in values["class_colors"].items() if n in classes}),
        fov_mpp=float(settings["fov_mpp"]),
        fov_px=int(settings["fov_px"]),
        max_detections=int(settings["max_detections"]),
    )
