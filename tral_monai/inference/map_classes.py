# SPDX-License-Identifier: Apache-2.0
"""What the values of a class map mean, and the rules that turn class probabilities into such a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError

NOT_ANALYSED = "Not analysed"
_MOST_MODEL_CLASSES = 250  # a class map is uint8 and keeps a few values for itself


class MapClasses:
    """The values of a class map: 0 is background, then the model's classes, then undefined and not analysed.

    A model that knows the background class itself (the paper's six outputs) shares value 0 with the tiles without
    tissue, so that its map values equal its output indices and ``Undefined`` is 6, as in the paper.

    Args:
        model_classes: names of the model's outputs, in their order.
        background: name of the class of tiles without tissue.
        undefined: name given to tiles whose class is uncertain.
        damaged: name of the class that needs a higher probability; it matters only where the model has it.

    Raises:
        ConfigError: no class, too many, a name twice, or a name that the map keeps for itself.
    """

    def __init__(
        self,
        model_classes: Sequence[str],
        *,
        background: str = "Background",
        undefined: str = "Undefined",
        damaged: str = "Damaged",
    ) -> None:
        self.model_classes = tuple(str(name) for name in model_classes)
        if not 1 <= len(self.model_classes) <= _MOST_MODEL_CLASSES:
            raise ConfigError(
                f"a class map needs 1 to {_MOST_MODEL_CLASSES} model classes, but got {len(self.model_classes)}"
            )
        repeated = {name for name in self.model_classes if self.model_classes.count(name) > 1}
        if repeated:
            raise ConfigError(f"class names must be unique, but {sorted(repeated)} stand more than once")
        for name in (undefined, NOT_ANALYSED):
            if name in self.model_classes:
                raise ConfigError(f"the class name '{name}' is kept for the map's own use; rename the model's class")
        tissue = [name for name in self.model_classes if name != background]
        self.names: tuple[str, ...] = (background, *tissue, undefined, NOT_ANALYSED)
        self.background = 0
        self.undefined = len(self.names) - 2
        self.not_analysed = len(self.names) - 1
        self.of_model: npt.NDArray[np.uint8] = np.array(
            [self.names.index(name) for name in self.model_classes], dtype=np.uint8
        )
        self.damaged_output = self.model_classes.index(damaged) if damaged in self.model_classes else None

    def __len__(self) -> int:
        return len(self.names)


def decide(
    probabilities: npt.NDArray[np.floating[Any]],
    classes: MapClasses,
    *,
    undefined_below: float = 0.6,
    damaged_at_least: float = 0.9,
) -> npt.NDArray[np.uint8]:
    """Turn class probabilities into map values by the rules of the TRI-AL authors' inference code.

    The largest probability decides. Below ``undefined_below`` the tile is undefined. Otherwise, where the damaged
    class is the largest but stays below ``damaged_at_least``, the second largest class is taken, however small.
    The damaged rule applies only where the model has a damaged class. Of equal probabilities the first class wins.

    Args:
        probabilities: (n, C), each row summing to 1, in the order of ``classes.model_classes``.
        classes: the values of the map.
        undefined_below: 0 turns the rule off.
        damaged_at_least: 0 turns the rule off.

    Returns:
        (n,) uint8 values of the map.

    Raises:
        ConfigError: the shape does not fit, a threshold is outside 0 to 1, or a probability is not finite.
    """
    for name, threshold in (("undefined_below", undefined_below), ("damaged_at_least", damaged_at_least)):
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"{name} must lie between 0 and 1, but is {threshold}")
    expected = len(classes.model_classes)
    if probabilities.ndim != 2 or probabilities.shape[1] != expected:
        raise ConfigError(f"expected probabilities of shape (n, {expected}), but got {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise ConfigError("probabilities must be finite, but some are NaN or infinite; check the model's weights")
    best = probabilities.argmax(axis=1)
    values = classes.of_model[best]
    damaged = classes.damaged_output
    if damaged is not None and expected > 1:
        doubtful = (best == damaged) & (probabilities[:, damaged] < damaged_at_least)
        others = probabilities[doubtful].copy()
        others[:, damaged] = -1.0
        values[doubtful] = classes.of_model[others.argmax(axis=1)]
    values[probabilities.max(axis=1, initial=0.0) < undefined_below] = classes.undefined
    return values
