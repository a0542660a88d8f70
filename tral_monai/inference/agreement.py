# SPDX-License-Identifier: Apache-2.0
"""How far a faster way to run a network is from the reference: on sampled tiles, with a floor to refuse below."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.errors import AgreementError, ConfigError

Values = torch.Tensor | npt.NDArray[Any]
REMEDY = (
    "use engine torch in precision fp32 without early_exit, which is the reference, another engine or gate, or a lower "
    "min_agreement if such differences do not matter"
)


@dataclass(frozen=True)
class Agreement:
    """Agreement of two ways to run one network.

    Attributes:
        tiles: tiles that both have seen.
        class_agreement: share of them with the same class, 0 to 1.
        largest_probability_difference: over all tiles and classes, 0 to 1.
        not_finite: tiles for which one of them gave NaN or infinity; these never agree.
    """

    tiles: int
    class_agreement: float
    largest_probability_difference: float
    not_finite: int = 0

    @property
    def compared(self) -> int:
        """How many things were compared: tiles."""
        return self.tiles

    @property
    def differing(self) -> int:
        """How many of them differ."""
        return self.compared - round(self.class_agreement * self.compared)

    def sentence(self, engine: str) -> str:
        """The agreement in one line, to be printed or logged.

        Args:
            engine: what was compared with the reference, such as ``openvino bf16``.
        """
        same = round(self.class_agreement * self.tiles)
        broken = f"; NaN or infinite for {self.not_finite}" if self.not_finite else ""
        return (
            f"{engine} gives the class of torch fp32 on {same} of {self.tiles} sampled tiles "
            f"({100 * self.class_agreement:.1f} %); largest difference of a probability "
            f"{self.largest_probability_difference:.2g}{broken}"
        )

    def require(self, floor: float, *, engine: str = "the engine", sample: int | None = None) -> None:
        """Refuse as soon as more differ than the whole sample permits; a part of it is no reason before.

        Args:
            floor: least share that must agree, 0 to 1.
            engine: see :meth:`sentence`.
            sample: size of the whole sample, of which this may be the first part; None: it is the whole.

        Raises:
            AgreementError: more than :func:`permitted_differences` differ, or an output is not finite.
        """
        of = self.compared if sample is None else sample
        permitted = permitted_differences(floor, of)
        if self.differing > permitted or self.not_finite:
            rule = f"at least {100 * floor:g} % are asked for, so that {permitted} of a sample of {of} may differ"
            raise AgreementError(f"{self.sentence(engine)}; {rule}; {REMEDY}")

    def describe(self) -> dict[str, Any]:
        """Plain data for a record of provenance."""
        return asdict(self)


def permitted_differences(floor: float, sample: int) -> int:
    """How many of a sample may differ: one of 128 at a floor of 0.99.

    Args:
        floor: least share that must agree, 0 to 1.
        sample: size of the whole sample.
    """
    return math.floor((1 - floor) * sample + 1e-9)  # 0.1 of 10 is 1, whatever 1 - 0.9 is in binary


def measure_agreement(
    reference: Values,
    other: Values,
    *,
    logits: bool = True,
    shown: Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]] | None = None,
) -> Agreement:
    """Compare what two engines say of the same tiles.

    Args:
        reference: (n, C) of the reference.
        other: (n, C) of the other.
        logits: both are logits, of which softmax makes probabilities; else they are probabilities.
        shown: turns probabilities (n, C) into the n classes to compare, such as those that a map shows; None: the most
            probable ones.

    Raises:
        ConfigError: the shapes differ, or there is no tile.
    """
    first, second = _array(reference), _array(other)
    if first.ndim != 2 or first.shape != second.shape:
        raise ConfigError(f"outputs to compare must both be (n, C), but are {first.shape} and {second.shape}")
    if not first.size:
        raise ConfigError("agreement needs at least one tile and class, but there is none")
    finite = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    good, also = first[finite], second[finite]
    if logits:
        good, also = _softmax(good), _softmax(also)
    classes = shown if shown is not None else _most_probable
    same = int((classes(good) == classes(also)).sum()) if len(good) else 0
    largest = 1.0 if not finite.all() else float(np.abs(good - also).max())
    return Agreement(len(first), same / len(first), largest, int((~finite).sum()))


def _array(values: Values) -> npt.NDArray[np.float64]:
    array = values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array.astype(np.float64)


def _most_probable(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return probabilities.argmax(axis=1)


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
