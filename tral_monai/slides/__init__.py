# SPDX-License-Identifier: Apache-2.0
"""Slide files to pixels: backends, magnification, tissue mask, reading of multiscale tile triplets."""

from __future__ import annotations

from tral_monai.slides.magnification import MAGNIFICATIONS, TILE_PX, level0_per_tile
from tral_monai.slides.slide import Slide, open_slide
from tral_monai.slides.tissue import TissueMask, tissue_mask
from tral_monai.slides.triplets import TripletReader, triplets_to_tensor_layout

__all__ = [
    "MAGNIFICATIONS",
    "TILE_PX",
    "Slide",
    "TissueMask",
    "TripletReader",
    "level0_per_tile",
    "open_slide",
    "tissue_mask",
    "triplets_to_tensor_layout",
]
