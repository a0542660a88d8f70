# SPDX-License-Identifier: Apache-2.0
"""Stain and geometry, batched, on the device the batch is on. Names are imported only when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tral_monai.transforms.augment import AugmentedPrepareBatch
    from tral_monai.transforms.batch import BatchTransform
    from tral_monai.transforms.boxes import ImageOnly, RandTurn
    from tral_monai.transforms.epoch_handler import EpochHandler
    from tral_monai.transforms.geometry import RandDihedral
    from tral_monai.transforms.stain_jitter import RandStainJitter
    from tral_monai.transforms.stain_normalize import MacenkoNormalize
    from tral_monai.transforms.stain_profile import StainProfile
    from tral_monai.transforms.views import View

_WHERE = {
    "AugmentedPrepareBatch": "augment",
    "BatchTransform": "batch",
    "EpochHandler": "epoch_handler",
    "ImageOnly": "boxes",
    "MacenkoNormalize": "stain_normalize",
    "RandDihedral": "geometry",
    "RandStainJitter": "stain_jitter",
    "RandTurn": "boxes",
    "StainProfile": "stain_profile",
    "View": "views",
}

__all__ = [
    "AugmentedPrepareBatch",
    "BatchTransform",
    "EpochHandler",
    "ImageOnly",
    "MacenkoNormalize",
    "RandDihedral",
    "RandStainJitter",
    "RandTurn",
    "StainProfile",
    "View",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
