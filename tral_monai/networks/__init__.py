# SPDX-License-Identifier: Apache-2.0
"""Networks and their checkpoints. Names are imported from torch-heavy modules only when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tral_monai.networks.checkpoint import load_checkpoint, read_contract, save_checkpoint
    from tral_monai.networks.contract import Contract
    from tral_monai.networks.keras_import import import_keras_weights
    from tral_monai.networks.tri_cnn import TriCNN

_WHERE = {
    "TriCNN": "tri_cnn",
    "Contract": "contract",
    "load_checkpoint": "checkpoint",
    "read_contract": "checkpoint",
    "save_checkpoint": "checkpoint",
    "import_keras_weights": "keras_import",
}

__all__ = ["Contract", "TriCNN", "import_keras_weights", "load_checkpoint", "read_contract", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
