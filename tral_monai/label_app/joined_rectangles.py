# SPDX-License-Identifier: Apache-2.0
"""Neighbouring rectangles as one: clients ask for a slide in tiles, and each rectangle looked at has its costs."""

from __future__ import annotations

from collections.abc import Iterable

from tral_monai.inference.slide_window import Rectangle


def joined_rectangles(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """The same area in fewer rectangles: those side by side first, then those one below the other.

    Args:
        rectangles: (x, y, width, height) in level-0 px; they may overlap.

    Returns:
        Rectangles by x, then y, which cover the same pixels. Those of a full grid of tiles become one.
    """
    rows = _joined(rectangles)
    columns = _joined((y, x, height, width) for x, y, width, height in rows)
    return sorted((x, y, width, height) for y, x, height, width in columns)


def _joined(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Join those of equal y and height that touch or overlap."""
    joined: list[Rectangle] = []
    for x, y, width, height in sorted(set(rectangles), key=lambda one: (one[1], one[3], one[0])):
        if joined:
            left, top, wide, high = joined[-1]
            if (top, high) == (y, height) and x <= left + wide:
                joined[-1] = (left, top, max(wide, x + width - left), high)
                continue
        joined.append((x, y, width, height))
    return joined
