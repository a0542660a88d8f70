# SPDX-License-Identifier: Apache-2.0
"""How many samples of each class a query asks for: Algorithm 1, line 8 of TRI-AL, with its gaps closed.

The paper gives N_i = FNR_i * S / sum(FNR) and is silent on rounding, on exhausted pools and on 0/0. Here the counts are
rounded by the method of largest remainders, so they sum exactly to S; shortages are redistributed or stop the run; and
weights that are all zero mean equal shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError, StrategyError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Mode = Literal["iter", "ood"]
Quirks = Literal["released"] | None


@dataclass(frozen=True, eq=False)
class AllocationResult:
    """Samples per class.

    Args:
        counts: (C,) what can be drawn now. All zero when the allocation stops.
        requested: (C,) what the weights asked for, before looking at what is available.
        short: Indices of classes whose pool holds less than was requested.
        stop: Whether `ood` mode ends the run here.
    """

    counts: IntArray
    requested: IntArray
    short: tuple[int, ...]
    stop: bool


def allocate(
    weights: npt.ArrayLike,
    total: int,
    available: npt.ArrayLike | None = None,
    *,
    mode: Mode = "iter",
    quirks: Quirks = None,
    eligible: npt.ArrayLike | None = None,
) -> AllocationResult:
    """Share `total` samples among classes in proportion to `weights`.

    Args:
        weights: (C,) non-negative, for TRI-AL the false-negative rates. All zero means equal shares.
        total: Samples to share, S in the paper; at least 0.
        available: (C,) samples left in each class pool; None for no limit.
        mode: "iter" caps each class at what is available and shares the rest by weight among the classes with room,
            until `total` is placed or the pools are empty; "ood" stops before drawing when any class falls short.
        quirks: "released" reproduces the authors' published program: shares are truncated (up to C - 1 samples are
            lost) and a class that falls short silently gives fewer. Give it false-negative *counts* as weights.
        eligible: (C,) bool, the classes that share when all weights are zero (a class that exists only as an output of
            the network should not); None for all. The others are drawn from only when nothing else is left.

    Returns:
        The counts; equal remainders go to the class with the lower index.

    Raises:
        ConfigError: `mode` or `quirks` is unknown.
        StrategyError: Weights are negative or not finite, shapes disagree, or `total` is negative.
    """
    if mode not in ("iter", "ood"):
        raise ConfigError(f"allocate: mode must be 'iter' or 'ood', but is {mode!r}.")
    if quirks not in (None, "released"):
        raise ConfigError(f"allocate: quirks must be None or 'released', but is {quirks!r}.")
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 1 or w.size == 0 or not np.isfinite(w).all() or (w < 0).any():
        raise StrategyError(f"allocate: weights must be a list of finite numbers >= 0, but are {w.tolist()}.")
    if total < 0:
        raise StrategyError(f"allocate: total must be at least 0, but is {total}.")
    room = _per_class(available, "available", w.size, np.iinfo(np.int64).max).astype(np.int64)
    if (room < 0).any():
        raise StrategyError(f"allocate: available must not be negative, but is {room.tolist()}.")
    in_play = _per_class(eligible, "eligible", w.size, True).astype(bool)
    if not in_play.any():
        in_play = np.ones(w.size, dtype=bool)

    if quirks == "released":
        ratio = w / w.sum() if w.sum() > 0 else in_play / in_play.sum()
        requested = (ratio * total).astype(np.int64)
    else:
        requested = largest_remainder(w if w.sum() > 0 else in_play.astype(np.float64), total)
    short = tuple(int(i) for i in np.flatnonzero(requested > room))
    if short and mode == "ood":
        return AllocationResult(np.zeros_like(requested), requested, short, stop=True)
    counts = np.minimum(requested, room)
    if quirks is None:
        _redistribute(counts, w, room, in_play, total)
    return AllocationResult(counts, requested, short, stop=False)


def largest_remainder(weights: FloatArray, total: int) -> IntArray:
    """Whole numbers in proportion to `weights` (C,) that sum exactly to `total`; ties go to the lower index."""
    exact = weights / weights.sum() * total
    # The tolerance keeps 0.29 * 100 = 28.999999999999996 at 29 and equal remainders equal.
    counts = np.floor(exact + 1e-9).astype(np.int64)
    remainder = np.round(exact - counts, 9)
    order = np.lexsort((np.arange(len(counts)), -remainder))
    # The tolerance may round up by more than the total only for totals beyond 1e9; cycle to stay exact.
    left = total - int(counts.sum())
    for k in range(abs(left)):
        counts[order[k % len(order)]] += np.sign(left)
    return counts


def _redistribute(counts: IntArray, w: FloatArray, room: IntArray, in_play: npt.NDArray[np.bool_], total: int) -> None:
    """Place what is missing, in place: by weight, then equally among classes in play, then among all with room."""
    while (left := total - int(counts.sum())) > 0:
        has_room = counts < room
        if not has_room.any():
            return
        for share in (w, in_play.astype(np.float64), np.ones_like(w)):
            open_share = np.where(has_room, share, 0.0)
            if open_share.sum() > 0:
                break
        counts += np.minimum(largest_remainder(open_share, left), room - counts)


def _per_class(values: npt.ArrayLike | None, name: str, n_classes: int, default: object) -> npt.NDArray[np.generic]:
    array = np.full(n_classes, default) if values is None else np.asarray(values)
    if array.shape != (n_classes,):
        raise StrategyError(f"allocate: {name} has shape {array.shape}, but there are {n_classes} weights.")
    return array
