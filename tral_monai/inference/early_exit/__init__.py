# SPDX-License-Identifier: Apache-2.0
"""Early exit: a tile's class from the low magnifications alone, 40x only where a calibrated gate asks for it."""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when first used, because all of them need torch.
_DEFINED_IN = {
    "EarlyExitModel": "early_exit_model",
    "ExitCalibration": "calibrate",
    "ExitGate": "gate",
}
__all__ = sorted(_DEFINED_IN)


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
