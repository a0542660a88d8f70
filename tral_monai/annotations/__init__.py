# SPDX-License-Identifier: Apache-2.0
"""Annotation files to one in-memory form and back, class names to classes, outlines to tile labels.

Names are imported when they are asked for: ``import tral_monai.annotations`` alone loads neither shapely nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tral_monai.annotations.asap_xml import read_asap_xml
    from tral_monai.annotations.asap_xml_writer import write_asap_xml
    from tral_monai.annotations.class_map import ClassMap, ClassRule
    from tral_monai.annotations.files import read_annotations
    from tral_monai.annotations.geojson import read_geojson, write_geojson
    from tral_monai.annotations.geometry import polygonal
    from tral_monai.annotations.model import Annotation, ShapeProblem

_MODULES = {
    "Annotation": "model",
    "ClassMap": "class_map",
    "ClassRule": "class_map",
    "ShapeProblem": "model",
    "polygonal": "geometry",
    "read_annotations": "files",
    "read_asap_xml": "asap_xml",
    "read_geojson": "geojson",
    "write_asap_xml": "asap_xml_writer",
    "write_geojson": "geojson",
}

__all__ = [
    "Annotation",
    "ClassMap",
    "ClassRule",
    "ShapeProblem",
    "polygonal",
    "read_annotations",
    "read_asap_xml",
    "read_geojson",
    "write_asap_xml",
    "write_geojson",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
