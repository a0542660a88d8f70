# SPDX-License-Identifier: Apache-2.0
"""Oracles: who answers a query, what it costs, and which class pools a class request may draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import ConfigError, PoolError, StrategyError
from tral_monai.strategies.base import Strategy

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SECONDS_PER_TILE = 6.0
"""Time to find one tile, look at it in its context and say its class, whichever strategy asked for it.

An assumption, to be replaced by a lab's own figure: minutes are then labels in another unit, and whether outlining a
region on request is quicker than answering scattered tiles is left to a study with people."""


@dataclass(frozen=True)
class Answers:
    """What an oracle answered.

    Attributes:
        ids: (k,) the samples asked for, in the order asked.
        classes: (k,) class index given, or -1 where the annotator declined.
        cost_labels: (k,) labels charged to the budget.
        cost_minutes: (k,) annotator minutes.
    """

    ids: IntArray
    classes: IntArray
    cost_labels: FloatArray
    cost_minutes: FloatArray


@runtime_checkable
class Oracle(Protocol):
    """Answers queries.

    Attributes:
        needs_probabilities: whether ``pool_classes`` goes by the model's predictions.
    """

    needs_probabilities: bool

    def label(self, ids: Sequence[int] | IntArray) -> Answers:
        """Give the classes of samples and what that cost."""
        ...

    def pool_classes(self, ids: IntArray, probabilities: FloatArray | None) -> IntArray | None:
        """The class pool of each sample, (n,), or None where this oracle has no such pools."""
        ...


class ArchiveOracle:
    """Labels exist already, for example in a finished annotation project; it has no class pools.

    Args:
        index: triplet index with the columns ``id`` and ``class``.
        classes: class names in the network's order.
        seconds_per_tile: annotator time charged for each tile, whatever its place; see ``SECONDS_PER_TILE``.

    Raises:
        ConfigError: the index names a class outside of ``classes``, or the time is negative.
    """

    needs_probabilities = False

    def __init__(
        self, index: pd.DataFrame, classes: Sequence[str], *, seconds_per_tile: float = SECONDS_PER_TILE
    ) -> None:
        if seconds_per_tile < 0:
            raise ConfigError(f"seconds_per_tile must be 0 or more, but is {seconds_per_tile}")
        numbers = {name: number for number, name in enumerate(classes)}
        unknown = sorted(set(index["class"]) - set(numbers))
        if unknown:
            raise ConfigError(f"the index has the classes {unknown}, which are not among {list(classes)}")
        self._truth = pd.Series(index["class"].map(numbers).to_numpy(np.int64), index=index["id"].to_numpy(np.int64))
        self._minutes = seconds_per_tile / 60.0

    def label(self, ids: Sequence[int] | IntArray) -> Answers:
        """The recorded classes.

        Raises:
            PoolError: an id is not in the archive.
        """
        asked = np.asarray(ids, dtype=np.int64)
        classes = self._classes_of(asked)
        return Answers(asked, classes, np.ones(len(asked)), np.full(len(asked), self._minutes))

    def pool_classes(self, ids: IntArray, probabilities: FloatArray | None) -> IntArray | None:
        """None: nobody has sorted this pool by class."""
        return None

    def _classes_of(self, ids: IntArray) -> IntArray:
        missing = ids[~np.isin(ids, self._truth.index.to_numpy())]
        if missing.size:
            raise PoolError(f"the archive has no label for sample {int(missing[0])} ({missing.size} in all)")
        return self._truth.loc[ids].to_numpy(np.int64)


class ClassRequestOracle(ArchiveOracle):
    """TRI-AL's pools: one per *true* class, so a query is a request such as "annotate more stroma".

    This is the simulation of Fuster et al. 2023 (section II-C): the annotator finds tissue of the class asked for, so
    what comes back is always of that class.
    """

    def pool_classes(self, ids: IntArray, probabilities: FloatArray | None) -> IntArray | None:
        """The true class of each sample."""
        return self._classes_of(np.asarray(ids, dtype=np.int64))


class PseudoLabelOracle(ArchiveOracle):
    """A class request without pools sorted by truth: the *predicted* class fills the quota, the truth comes back."""

    needs_probabilities = True

    def pool_classes(self, ids: IntArray, probabilities: FloatArray | None) -> IntArray | None:
        """The predicted class of each sample.

        Raises:
            StrategyError: there are no predictions.
        """
        if probabilities is None:
            raise StrategyError("the oracle 'pseudo_label' needs the model's probabilities on the pool, but got none")
        return np.asarray(probabilities).argmax(axis=1).astype(np.int64)


class NoisyOracle:
    """Another oracle whose answers are sometimes wrong, always in the same way for the same sample.

    Args:
        oracle: the oracle that is right.
        num_classes: number of classes.
        rate: chance of a wrong answer, spread evenly over the other classes; ignored where ``confusion`` is given.
        confusion: (C, C) rows of chances, ``confusion[truth][given]``; each row sums to 1.
        seed: two oracles of one seed err alike, whatever the order of the questions.

    Raises:
        ConfigError: the rate is outside 0..1, or the confusion rows are not chances.
    """

    def __init__(
        self,
        oracle: Oracle,
        num_classes: int,
        *,
        rate: float = 0.1,
        confusion: Sequence[Sequence[float]] | None = None,
        seed: int = 0,
    ) -> None:
        if confusion is None:
            if not 0 <= rate <= 1:
                raise ConfigError(f"the noise rate must lie in 0..1, but is {rate}")
            matrix = np.full((num_classes, num_classes), rate / max(num_classes - 1, 1))
            np.fill_diagonal(matrix, 1 - rate)
        else:
            matrix = np.asarray(confusion, dtype=np.float64)
            if matrix.shape != (num_classes, num_classes) or (matrix < 0).any():
                raise ConfigError(f"confusion must be {num_classes} x {num_classes} chances, but is {confusion}")
            if not np.allclose(matrix.sum(axis=1), 1.0):
                raise ConfigError(f"each row of confusion must sum to 1, but they sum to {matrix.sum(axis=1).tolist()}")
        self._oracle, self._cumulative, self._seed = oracle, matrix.cumsum(axis=1), seed
        self.needs_probabilities = oracle.needs_probabilities

    def label(self, ids: Sequence[int] | IntArray) -> Answers:
        """The wrapped oracle's answers with noise; declined samples stay declined."""
        answers = self._oracle.label(ids)
        classes = answers.classes.copy()
        for position, (sample_id, truth) in enumerate(zip(answers.ids, answers.classes, strict=True)):
            if truth >= 0:
                draw = np.random.default_rng([self._seed, int(sample_id)]).random()
                given = int(np.searchsorted(self._cumulative[truth], draw, side="right"))
                classes[position] = min(given, self._cumulative.shape[1] - 1)
        return Answers(answers.ids, classes, answers.cost_labels, answers.cost_minutes)

    def pool_classes(self, ids: IntArray, probabilities: FloatArray | None) -> IntArray | None:
        """The wrapped oracle's pools."""
        return self._oracle.pool_classes(ids, probabilities)


ORACLES: dict[str, type[ArchiveOracle]] = {
    "archive": ArchiveOracle,
    "class_request": ClassRequestOracle,
    "pseudo_label": PseudoLabelOracle,
}


def get_oracle(
    name: str,
    index: pd.DataFrame,
    classes: Sequence[str],
    *,
    strategy: Strategy | None = None,
    noise: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> Oracle:
    """An oracle by name: ``archive``, ``class_request`` or ``pseudo_label``, with label noise where asked.

    Args:
        name: the oracle, or ``auto``: ``class_request`` for a strategy that needs class pools, else ``archive``.
        index: triplet index of the pool.
        classes: class names in the network's order.
        strategy: what ``auto`` goes by.
        noise: share of wrong answers.
        seed: of the noise.
        **options: further arguments of the oracle.

    Raises:
        ConfigError: no oracle has that name.
    """
    if name == "auto":
        name = "class_request" if strategy is not None and "pool_classes" in strategy.needs else "archive"
    if name not in ORACLES:
        raise ConfigError(f"no oracle is called '{name}'; choose 'auto' or one of {sorted(ORACLES)}")
    oracle: Oracle = ORACLES[name](index, classes, **options)
    return NoisyOracle(oracle, len(classes), rate=noise, seed=seed) if noise else oracle
