# SPDX-License-Identifier: Apache-2.0
"""Cohorts, triplet indexes, pools, datasets. Names are imported when they are asked for; only datasets load torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tral_monai.annotations.tile_grid import TileGrid
    from tral_monai.data.class_names import identity_class_map
    from tral_monai.data.cohort import Cohort, CohortRow, read_cohort
    from tral_monai.data.index_report import IndexReport
    from tral_monai.data.pool import Pool
    from tral_monai.data.triplet_index import build_triplet_index, read_index, write_index

_MODULES = {
    "Cohort": "tral_monai.data.cohort",
    "CohortRow": "tral_monai.data.cohort",
    "IndexReport": "tral_monai.data.index_report",
    "Pool": "tral_monai.data.pool",
    "TileGrid": "tral_monai.annotations.tile_grid",
    "build_triplet_index": "tral_monai.data.triplet_index",
    "identity_class_map": "tral_monai.data.class_names",
    "read_cohort": "tral_monai.data.cohort",
    "read_index": "tral_monai.data.triplet_index",
    "write_index": "tral_monai.data.triplet_index",
}

__all__ = [
    "Cohort",
    "CohortRow",
    "IndexReport",
    "Pool",
    "TileGrid",
    "build_triplet_index",
    "identity_class_map",
    "read_cohort",
    "read_index",
    "write_index",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
