# SPDX-License-Identifier: Apache-2.0
"""Checks of strategy options, which come from YAML and may have any type."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tral_monai.errors import ConfigError


def choice(strategy: str, option: str, value: object, allowed: Sequence[str | None]) -> None:
    """Raise ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{strategy}: {option} must be one of {list(allowed)}, but is {value!r}.")


def number(strategy: str, option: str, value: object, *, low: float, high: float = math.inf) -> float:
    """Return `value` as a float; raise ConfigError unless it is a finite number within [low, high].

    YAML reads `1e-3` (no dot) as a string, hence the type check with a message.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{strategy}: {option} must be a number, but is {value!r} ({type(value).__name__}).")
    if not low <= value <= high:
        raise ConfigError(f"{strategy}: {option} must lie between {low:g} and {high:g}, but is {value}.")
    return float(value)


def whole(strategy: str, option: str, value: object, *, low: int) -> int:
    """Return `value` as an int; raise ConfigError unless it is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{strategy}: {option} must be a whole number of at least {low}, but is {value!r}.")
    return value
