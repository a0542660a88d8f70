# SPDX-License-Identifier: Apache-2.0
"""Area under a learning curve: one number for a whole run, on any cost axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError


def area_under_learning_curve(
    cost: npt.ArrayLike, score: npt.ArrayLike, *, cost_range: tuple[float, float] | None = None
) -> float:
    """Trapezoid area under score against cost, divided by the range of cost: the mean score over the budget.

    Args:
        cost: (r,) labels, annotator minutes, ...; strictly rising, in any spacing.
        score: (r,) the score reached at each cost, such as macro F1.
        cost_range: Area between these costs only, with straight lines between the points. Runs that are compared must
            share one range: give the part that all of them cover.

    Returns:
        A value in the unit of `score`. A constant score gives itself.

    Raises:
        ConfigError: Fewer than two points, costs that do not rise, values that are not finite, or a range beyond the
            points.
    """
    x, y = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (cost, score))
    if len(x) != len(y) or len(x) < 2:
        raise ConfigError(f"A learning curve needs two points or more, but has {len(x)} costs and {len(y)} scores.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ConfigError("A learning curve must be finite, but costs or scores hold NaN or infinity.")
    if (np.diff(x) <= 0).any():
        raise ConfigError(f"Costs must rise from round to round, but are {x.tolist()}.")
    if cost_range is not None:
        low, high = cost_range
        if not x[0] <= low < high <= x[-1]:
            raise ConfigError(f"cost_range {cost_range} must lie within the curve's {x[0]:g} to {x[-1]:g}.")
        inside = (x > low) & (x < high)
        ends = np.interp([low, high], x, y)
        x, y = np.concatenate([[low], x[inside], [high]]), np.concatenate([ends[:1], y[inside], ends[1:]])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))
