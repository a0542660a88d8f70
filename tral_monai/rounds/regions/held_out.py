# SPDX-License-Identifier: Apache-2.0
"""What a round is measured by where nobody has annotated a held-out region yet: part of the training answers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pandas as pd

FRACTION = 0.2
"""Part of the regions (or of the one region) that is held out."""


def held_out_regions(regions: Collection[int], *, seed: int = 0) -> set[int]:
    """Choose about a fifth of two or more regions: at least one, and at most a third of them.

    Whether a region is chosen hangs on its id and the seed, not on what else there is, so that a region that an
    earlier round was measured by is not trained on in the next one. Only among the first few can one change sides.

    Args:
        regions: ids.
        seed: of the draw.

    Returns:
        Ids of the regions held out; none where there is one region or none.
    """
    order = sorted(set(regions), key=lambda number: _draw(number, seed))
    if len(order) < 2:
        return set()
    chosen = sum(_draw(number, seed) < FRACTION for number in order)
    return set(order[: max(min(chosen, len(order) // 3), 1)])


def divide_region(tiles: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the tiles of one region: the far fifth of its longer side is held out, a row of tiles between is left out.

    Args:
        tiles: rows of a triplet index, one or more.

    Returns:
        (to train on, held out). With two places along the longer side nothing is left out between; with one, nothing
        is held out.
    """
    sides = {name: tiles[name].to_numpy(np.int64) for name in ("x_level0", "y_level0")}
    axis = max(sides, key=lambda name: int(np.ptp(sides[name])))
    places = np.unique(sides[axis])
    if len(places) < 2:
        return tiles, tiles.iloc[:0]
    far = max(round(FRACTION * len(places)), 1)
    gap = 1 if len(places) - far > 1 else 0
    return tiles[tiles[axis] < places[len(places) - far - gap]], tiles[tiles[axis] >= places[len(places) - far]]


def _draw(number: int, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\0{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
