# SPDX-License-Identifier: Apache-2.0
"""Slides and fields to nuclei: detection in tiles, joining across seams, files that QuPath opens."""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when first used, because most of them need torch.
_DEFINED_IN = {
    "CountsWriter": "counts",
    "DetectionInferer": "detection_inferer",
    "NucleiCSVWriter": "nuclei_csv",
    "NucleiGeoJSONWriter": "nuclei_geojson",
    "NucleiOverlayWriter": "nuclei_overlay",
    "NucleusInference": "run",
    "NucleusMap": "nucleus_map",
    "NucleusMapper": "nucleus_mapper",
}
__all__ = sorted(_DEFINED_IN)


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
