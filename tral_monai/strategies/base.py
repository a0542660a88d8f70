# SPDX-License-Identifier: Apache-2.0
"""What a query strategy sees, what it answers, and the checks that all strategies share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tral_monai.errors import EmptyPoolError, StrategyError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_PER_ROW = ("probabilities", "features", "pool_classes")
_PER_CLASS = ("false_negatives", "positives", "labelled_counts", "class_distribution")
_NDIM = {"probabilities": 2, "features": 2, "labelled_features": 2}
_INTEGER = ("ids", "pool_classes")

# Where each field comes from, for the message that a strategy gives when it is missing.
_BROUGHT_BY = {
    "probabilities": "a trained model run over the pool; with no model yet start with 'typiclust' (features of a "
    "pretrained backbone are enough) or 'random'",
    "features": "the feature output of the network (TriCNN.features, or a cached feature table)",
    "pool_classes": "the oracle 'class_request', which knows the class of every sample in the pool; without one use "
    "'tri_al_quota', which goes by predicted classes",
    "false_negatives": "evaluating the model on the validation split (false negatives per class)",
    "positives": "evaluating the model on the validation split (samples per class)",
    "labelled_counts": "the pool's labelled ids and the classes given to them",
    "class_distribution": "the oracle 'class_request': the class counts of the whole training set",
    "labelled_features": "the feature output of the network on the labelled samples",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolOutputs:
    """All that a strategy may know about the unlabelled pool. Arrays are converted and their shapes checked.

    Args:
        ids: (n,) integers, unique: the samples that may be chosen.
        probabilities: (n, C) softmax outputs of the model, rows sum to 1.
        features: (n, D) features of the network.
        pool_classes: (n,) true class of each sample, in a setting where an oracle knows it (a class request).
        false_negatives: (C,) false negatives per class on the validation split.
        positives: (C,) samples per class on the validation split.
        labelled_counts: (C,) labelled samples per class so far.
        class_distribution: (C,) counts or fractions per class of the whole training set.
        labelled_features: (m, D) features of the samples labelled so far.
        class_names: (C,) names for the reasons; without them classes are called "class 0", "class 1", ...

    Raises:
        StrategyError: An array's shape contradicts another's, ids repeat, or a class index is out of range.
    """

    ids: IntArray
    probabilities: npt.NDArray[Any] | None = None
    features: npt.NDArray[Any] | None = None
    pool_classes: IntArray | None = None
    false_negatives: FloatArray | None = None
    positives: FloatArray | None = None
    labelled_counts: FloatArray | None = None
    class_distribution: FloatArray | None = None
    labelled_features: npt.NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name == "class_names":
                object.__setattr__(self, field.name, tuple(str(name) for name in value))
            else:
                object.__setattr__(self, field.name, _as_array(field.name, value))
        n = len(self.ids)
        if len(np.unique(self.ids)) != n:
            raise StrategyError("PoolOutputs.ids must be unique, but some ids come twice; give each sample once.")
        for name in _PER_ROW:
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise StrategyError(f"PoolOutputs.{name} has {len(value)} rows for {n} ids; give one row per id.")
        widths = {name: len(v) for name in _PER_CLASS if (v := getattr(self, name)) is not None}
        if self.probabilities is not None:
            widths["probabilities"] = self.probabilities.shape[1]
        if self.class_names is not None:
            widths["class_names"] = len(self.class_names)
        if len(set(widths.values())) > 1:
            raise StrategyError(f"PoolOutputs fields disagree on the number of classes: {widths}.")
        if self.features is not None and self.labelled_features is not None:
            widths_d = self.features.shape[1], self.labelled_features.shape[1]
            if widths_d[0] != widths_d[1]:
                raise StrategyError(f"features have width {widths_d[0]} but labelled_features {widths_d[1]}.")
        if self.pool_classes is not None and n:
            low, high = int(self.pool_classes.min()), int(self.pool_classes.max())
            if low < 0 or (widths and high >= next(iter(widths.values()))):
                raise StrategyError(
                    f"pool_classes run from {low} to {high}, but the class indices are 0 to "
                    f"{next(iter(widths.values()), high + 1) - 1}; leave samples of unknown class out of the pool."
                )

    @property
    def n_classes(self) -> int:
        """Number of classes, from whichever field tells it; from `pool_classes` when no other does."""
        if self.probabilities is not None:
            return int(self.probabilities.shape[1])
        for name in (*_PER_CLASS, "class_names"):
            value = getattr(self, name)
            if value is not None:
                return len(value)
        if self.pool_classes is not None and len(self.pool_classes):
            return int(self.pool_classes.max()) + 1
        raise StrategyError("The number of classes is unknown: give probabilities, class_names or a per-class field.")

    def array(self, field: str) -> npt.NDArray[Any]:
        """A field that must be there.

        Raises:
            StrategyError: It is missing; the message says what brings it.
        """
        value: npt.NDArray[Any] | None = getattr(self, field)
        if value is None:
            raise StrategyError(f"'{field}' is needed, but it is missing. It is brought by {_BROUGHT_BY[field]}.")
        return value

    def class_name(self, index: int) -> str:
        """Name of a class for messages and reasons."""
        return self.class_names[index] if self.class_names is not None else f"class {index}"

    def take(self, rows: npt.NDArray[Any]) -> PoolOutputs:
        """The same outputs with only the given rows of the pool, in the given order."""
        changed = {name: getattr(self, name)[rows] for name in ("ids", *_PER_ROW) if getattr(self, name) is not None}
        return replace(self, **changed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Selection:
    """The answer of a strategy, in the order in which samples should be labelled.

    Args:
        ids: (k,) chosen ids; k = min(n, pool) unless a strategy stops.
        scores: (k,) the score of each sample when it was chosen; its meaning is the strategy's.
        class_asked: (k,) class that the annotator is asked for, or that the sample was chosen for; -1 = none.
        reasons: (k,) one sentence per sample, for the ledger and the report.
        stop: Why the query ended the run (`tri_al_ood`), or None.
    """

    ids: IntArray
    scores: FloatArray
    class_asked: IntArray
    reasons: tuple[str, ...]
    stop: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, stop: str) -> Selection:
        """No sample chosen, with the reason."""
        none = np.empty(0, dtype=np.int64)
        return cls(ids=none, scores=np.empty(0), class_asked=none.copy(), reasons=(), stop=stop)


class Strategy(ABC):
    """A query strategy: a pure function of arrays, with no file, dataset or model inside.

    Rows are sorted by id before anything is drawn, so the same samples and the same seed give the same choice whatever
    the order in which workers or ranks delivered them (`quirks="released"`, which draws in pool order, excepted).

    Attributes:
        name: Name in the registry.
        needs: `PoolOutputs` fields without which the strategy cannot work.
        wants: `PoolOutputs` fields that it uses when they are there.
    """

    name: ClassVar[str]
    needs: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    _keeps_row_order: bool = False
    _caps_n: ClassVar[bool] = True

    def score(self, outputs: PoolOutputs) -> FloatArray:
        """Score every sample of the pool on its own; a higher score is chosen earlier.

        Returns:
            (n,) float64, in the row order of `outputs`.

        Raises:
            EmptyPoolError: The pool has no rows.
            StrategyError: A needed field is missing, or an input or a score is not finite.
        """
        self._check(outputs)
        return self._checked_scores(self._score(outputs))

    def select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        """Choose min(n, pool) samples to label next.

        Args:
            outputs: The pool as the model sees it.
            n: Samples to choose, at least 1.
            generator: Source of all randomness; the same state gives the same choice.

        Raises:
            EmptyPoolError: The pool has no rows.
            StrategyError: `n` is below 1, a needed field is missing, or an input or a score is not finite.
        """
        if isinstance(n, bool) or int(n) != n or n < 1:
            raise StrategyError(f"{self.name}: n must be a whole number of at least 1 sample, but is {n}.")
        self._check(outputs)
        if not self._keeps_row_order:
            outputs = outputs.take(np.argsort(outputs.ids, kind="stable"))
        n = min(int(n), len(outputs.ids)) if self._caps_n else int(n)
        selection = self._select(outputs, n, generator)
        self._checked_scores(selection.scores)
        return selection

    @abstractmethod
    def _score(self, outputs: PoolOutputs) -> FloatArray:
        """Score checked outputs."""

    @abstractmethod
    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        """Choose from checked outputs sorted by id; 1 <= n, and n <= pool unless `_caps_n` is off."""

    def _check(self, outputs: PoolOutputs) -> None:
        if len(outputs.ids) == 0:
            raise EmptyPoolError(f"{self.name}: nothing is left in the pool to choose from; stop the run here.")
        for field in sorted(self.needs | self.wants):
            value = getattr(outputs, field)
            if value is None:
                if field in self.needs:
                    raise StrategyError(
                        f"{self.name} needs '{field}', but it is missing. It is brought by {_BROUGHT_BY[field]}."
                    )
                continue
            if not np.isfinite(value).all():
                bad = int(np.sum(~np.isfinite(value).reshape(len(value), -1).all(axis=1)))
                raise StrategyError(
                    f"{self.name}: '{field}' must be finite, but {bad} of {len(value)} rows hold NaN or infinity; "
                    "did the training diverge?"
                )
            if field == "probabilities":
                _check_probabilities(self.name, value)
            elif field in _PER_CLASS and (value < 0).any():
                raise StrategyError(f"{self.name}: '{field}' must not be negative, but is {value.tolist()}.")

    def _checked_scores(self, scores: FloatArray) -> FloatArray:
        if not np.isfinite(scores).all():
            raise StrategyError(f"{self.name}: {int(np.sum(~np.isfinite(scores)))} scores are not finite.")
        return np.asarray(scores, dtype=np.float64)


def _as_array(name: str, value: object) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.ndim != _NDIM.get(name, 1):
        raise StrategyError(
            f"PoolOutputs.{name} must have {_NDIM.get(name, 1)} dimensions, but has shape {array.shape}."
        )
    if name in _INTEGER:
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise StrategyError(f"PoolOutputs.{name} must hold whole numbers, but its dtype is {array.dtype}.")
        return array.astype(np.int64)
    if name in _PER_CLASS:
        return array.astype(np.float64)
    if not np.issubdtype(array.dtype, np.floating):
        raise StrategyError(f"PoolOutputs.{name} must hold floating point numbers, but its dtype is {array.dtype}.")
    return array


def _check_probabilities(name: str, probabilities: npt.NDArray[Any]) -> None:
    low, off = float(probabilities.min()), float(np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max())
    # Half-precision softmax outputs of some ten classes miss 1 by less than this; logits miss it by far.
    if low < 0 or off > 1e-2:
        raise StrategyError(
            f"{name}: 'probabilities' must be softmax outputs (rows of 0..1 that sum to 1), but the smallest value is "
            f"{low:.3g} and a row misses 1 by {off:.3g}; apply softmax to the logits first."
        )
