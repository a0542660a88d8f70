# SPDX-License-Identifier: Apache-2.0
"""The colours that TRI-AL's figures give its classes, for everything that shows them."""

from __future__ import annotations

# Fuster et al. 2023 (TRI-AL). annotations/class_maps/bladder.yaml repeats them, for users to copy.
PAPER_COLORS: dict[str, tuple[int, int, int]] = {
    "Background": (0, 0, 0),
    "Blood": (128, 0, 0),
    "Damaged": (0, 130, 200),
    "Muscle": (60, 180, 75),
    "Stroma": (240, 50, 230),
    "Urothelium": (245, 130, 48),
    "Undefined": (128, 128, 128),
}
