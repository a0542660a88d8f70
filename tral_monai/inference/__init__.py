# SPDX-License-Identifier: Apache-2.0
"""Slides in, results out: tissue maps, the files that QuPath and people open, and what is known about each of them."""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when first used, because most of them need torch.
_DEFINED_IN = {
    "AreasWriter": "areas",
    "ClassMapWriter": "class_map_png",
    "EngineSettings": "engines.settings",
    "FeaturesWriter": "features_writer",
    "GeoJSONWriter": "geojson_writer",
    "MapClasses": "map_classes",
    "OverlayWriter": "overlay",
    "ProbabilityZarrWriter": "probability_zarr",
    "ProgressHandler": "progress_handler",
    "ProvenanceWriter": "provenance",
    "SlideEvaluator": "slide_evaluator",
    "SlideListDataset": "slide_list",
    "TissueInference": "run",
    "TissueMap": "tissue_map",
    "TissueMapper": "tissue_mapper",
    "decide": "map_classes",
}
__all__ = sorted(_DEFINED_IN)


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
