# SPDX-License-Identifier: Apache-2.0
"""Which tiles a little would change: where half precision is asked again in full."""

from __future__ import annotations

import torch


def close_calls(
    probabilities: torch.Tensor,
    margin: float,
    *,
    undefined_below: float = 0.0,
    damaged_at_least: float = 0.0,
    damaged_output: int | None = None,
) -> torch.Tensor:
    """Tiles for which the map (:func:`tral_monai.inference.map_classes.decide`) could show another class.

    Their two largest probabilities differ by less than the margin; or the largest lies within half of it of a threshold
    of the map; or ``Damaged`` is the most probable class but too improbable to be shown, and the second and the third
    differ by less than the margin. A NaN is not far from anything, and so counts.

    Args:
        probabilities: (k, C) float.
        margin: above 0 to 1.
        undefined_below: the map's rule; 0 where there is none.
        damaged_at_least: the map's rule; 0 where there is none.
        damaged_output: column of ``Damaged``; None where the network does not have it.

    Returns:
        (k,) bool on the device of ``probabilities``.
    """
    largest = probabilities.topk(min(3, probabilities.shape[1]), dim=1)
    best = largest.values[:, 0]
    second = largest.values[:, min(1, largest.values.shape[1] - 1)]
    close = ~(best - second >= margin)
    half = margin / 2
    if undefined_below:
        close |= ~((best - undefined_below).abs() >= half)
    if damaged_at_least and damaged_output is not None:
        damaged = largest.indices[:, 0] == damaged_output
        close |= damaged & ~((best - damaged_at_least).abs() >= half)
        if largest.values.shape[1] > 2:  # the second class is shown, unless the third comes before it
            close |= damaged & (best < damaged_at_least) & ~(second - largest.values[:, 2] >= margin)
    return close
