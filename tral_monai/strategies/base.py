# SPDX-License-Identifier: Apache-2.0
"""What a query strategy sees, what it answers, and the checks that all strategies share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import EmptyPoolError, StrategyError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Task = Literal["tissue", "nuclei", "any"]
Auxiliary = Literal["prototype", "k_plus_one"]

_PER_ROW = ("probabilities", "features", "pool_classes", "predicted_losses")
_PER_CLASS = ("false_negatives", "positives", "labelled_counts", "class_distribution", "labelled_class_means")
_DETECTIONS = ("detections", "auxiliary_detections")
_MANY_DETECTIONS = ("view_detections", "noise_detections")
_NDIM = {"probabilities": 2, "features": 2, "labelled_features": 2, "known_reference": 2, "unknown_reference": 2}
_INTEGER = ("ids", "pool_classes")
_CHECKED_ROWS = 1 << 14  # rows looked at together: a mask of a large pool's features would be hundreds of megabytes

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
    "detections": "the target detector run over the pool",
    "auxiliary_detections": "the round's auxiliary detector (`Strategy.auxiliary` tells its kind) run over the pool",
    "predicted_losses": "a target detector with a loss-prediction head (`Strategy.loss_prediction`)",
    "view_detections": "the target detector run over augmented views of the pool, boxes mapped back to the image",
    "noise_detections": "the target detector run over the pool with noise added, once per noise level",
    "known_reference": "RoI features of the labelled nuclei of known classes ((0, D) where there are none)",
    "unknown_reference": "RoI features of the nuclei ticked unknown ((0, D) where there are none)",
    "labelled_class_means": "the labelled images: mean nuclei of each known class per image",
    "labelled_unknown": "the annotator's answers: how many nuclei were ticked unknown so far",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolOutputs:
    """All that a strategy may know about the unlabelled pool. Arrays are converted and their shapes checked.

    Args:
        ids: (n,) integers, unique: the samples that may be chosen; tiles, or fields of view (images) with nuclei.
        probabilities: (n, C) softmax outputs of the model, rows sum to 1.
        features: (n, D) features of the network.
        pool_classes: (n,) true class of each sample, in a setting where an oracle knows it (a class request).
        false_negatives: (C,) false negatives per class on the validation split.
        positives: (C,) samples per class on the validation split.
        labelled_counts: (C,) labelled samples per class so far.
        class_distribution: (C,) counts or fractions per class of the whole training set.
        labelled_features: (m, D) features of the samples labelled so far.
        class_names: (C,) names for the reasons; without them classes are called "class 0", "class 1", ... For nuclei
            these are the K known classes.
        detections: What the target detector found in the n images; image i is `ids[i]`.
        auxiliary_detections: The same of the auxiliary detector.
        view_detections: One per augmented view of the n images, boxes mapped back to the image.
        noise_detections: One per noise level, of the n images with noise added.
        predicted_losses: (n,) loss that the detector's loss-prediction head expects of each image.
        known_reference: (m, D) RoI features of labelled nuclei of known classes; m may be 0.
        unknown_reference: (m, D) RoI features of nuclei that the annotator ticked unknown; m may be 0.
        labelled_class_means: (K,) mean nuclei of each known class per labelled image.
        labelled_unknown: Nuclei that the annotator has ticked unknown so far.

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
    detections: Detections | None = None
    auxiliary_detections: Detections | None = None
    view_detections: tuple[Detections, ...] | None = None
    noise_detections: tuple[Detections, ...] | None = None
    predicted_losses: npt.NDArray[Any] | None = None
    known_reference: npt.NDArray[Any] | None = None
    unknown_reference: npt.NDArray[Any] | None = None
    labelled_class_means: FloatArray | None = None
    labelled_unknown: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, _as_field(field.name, value))
        n = len(self.ids)
        if len(np.unique(self.ids)) != n:
            raise StrategyError("PoolOutputs.ids must be unique, but some ids come twice; give each sample once.")
        for name in _PER_ROW:
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise StrategyError(f"PoolOutputs.{name} has {len(value)} rows for {n} ids; give one row per id.")
        for name, found in self._all_detections():
            if len(found) != n:
                raise StrategyError(f"PoolOutputs.{name} holds {len(found)} images for {n} ids; give one image per id.")
        widths = {name: len(v) for name in _PER_CLASS if (v := getattr(self, name)) is not None}
        if self.probabilities is not None:
            widths["probabilities"] = self.probabilities.shape[1]
        if self.class_names is not None:
            widths["class_names"] = len(self.class_names)
        if self.detections is not None and self.detections.probabilities is not None:
            widths["detections.probabilities without background"] = self.detections.probabilities.shape[1] - 1
        if len(set(widths.values())) > 1:
            raise StrategyError(f"PoolOutputs fields disagree on the number of classes: {widths}.")
        if self.features is not None and self.labelled_features is not None:
            widths_d = self.features.shape[1], self.labelled_features.shape[1]
            if widths_d[0] != widths_d[1]:
                raise StrategyError(f"features have width {widths_d[0]} but labelled_features {widths_d[1]}.")
        for name in ("known_reference", "unknown_reference"):
            reference = getattr(self, name)
            if reference is None or self.detections is None or self.detections.features is None:
                continue
            if len(reference) and reference.shape[1] != self.detections.features.shape[1]:
                raise StrategyError(
                    f"{name} has width {reference.shape[1]} but detections.features "
                    f"{self.detections.features.shape[1]}; both must come from the same detector."
                )
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
        if self.detections is not None and self.detections.probabilities is not None:
            return int(self.detections.probabilities.shape[1]) - 1
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

    def found(self, field: str = "detections") -> Detections:
        """`detections` or `auxiliary_detections`, which must be there.

        Raises:
            StrategyError: It is missing; the message says what brings it.
        """
        value: Detections | None = getattr(self, field)
        if value is None:
            raise StrategyError(f"'{field}' is needed, but it is missing. It is brought by {_BROUGHT_BY[field]}.")
        return value

    def _all_detections(self) -> list[tuple[str, Detections]]:
        single = [(name, value) for name in _DETECTIONS if (value := getattr(self, name)) is not None]
        return single + [
            (f"{name}[{i}]", v) for name in _MANY_DETECTIONS for i, v in enumerate(getattr(self, name) or ())
        ]

    def class_name(self, index: int) -> str:
        """Name of a class for messages and reasons."""
        return self.class_names[index] if self.class_names is not None else f"class {index}"

    def take(self, rows: npt.NDArray[Any]) -> PoolOutputs:
        """The same outputs with only the given rows of the pool, in the given order."""
        changed: dict[str, Any] = {
            name: getattr(self, name)[rows] for name in ("ids", *_PER_ROW) if getattr(self, name) is not None
        }
        for name in _DETECTIONS:
            if (found := getattr(self, name)) is not None:
                changed[name] = found.take_images(rows)
        for name in _MANY_DETECTIONS:
            if (many := getattr(self, name)) is not None:
                changed[name] = tuple(found.take_images(rows) for found in many)
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
        task: What it chooses: "tissue" (tiles), "nuclei" (fields of view by what detectors found), or "any".
        columns: For `PoolOutputs` fields that hold `Detections`, the columns needed beyond boxes, labels and scores.
        auxiliary: The auxiliary detector that the round must train for it: "prototype" ({known, unknown} with
            prototypes), "k_plus_one" (known classes and one for unknown), or none.
        loss_prediction: Whether the target detector needs a loss-prediction head.
    """

    name: ClassVar[str]
    needs: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    task: ClassVar[Task] = "tissue"
    columns: Mapping[str, frozenset[str]] = MappingProxyType({})
    auxiliary: Auxiliary | None = None
    loss_prediction: ClassVar[bool] = False
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
        if not self._keeps_row_order and (np.diff(outputs.ids) < 0).any():  # else a copy of all features for nothing
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
            if field in _DETECTIONS:
                self._check_detections(field, field, value)
            elif field in _MANY_DETECTIONS:
                if not value:
                    raise StrategyError(f"{self.name}: '{field}' is empty. It is brought by {_BROUGHT_BY[field]}.")
                for i, found in enumerate(value):
                    self._check_detections(field, f"{field}[{i}]", found)
            elif field != "labelled_unknown":
                self._check_finite(field, value)
            if field == "probabilities":
                _check_probabilities(self.name, value)
            elif field in _PER_CLASS and (value < 0).any():
                raise StrategyError(f"{self.name}: '{field}' must not be negative, but is {value.tolist()}.")

    def _check_detections(self, field: str, shown: str, found: Detections) -> None:
        there = found.columns()
        for column in sorted(self.columns.get(field, frozenset()) | {"scores"}):
            if column not in there:
                raise StrategyError(
                    f"{self.name} needs '{shown}.{column}', but it is missing; ask the detector for '{column}' too."
                )
            self._check_finite(f"{shown}.{column}", there[column])
            if column == "probabilities" and len(there[column]):
                _check_probabilities(self.name, there[column], f"{shown}.probabilities")

    def _check_finite(self, field: str, value: npt.NDArray[Any]) -> None:
        for start in range(0, len(value), _CHECKED_ROWS):
            if not np.isfinite(value[start : start + _CHECKED_ROWS]).all():
                bad = int(np.sum(~np.isfinite(value).reshape(len(value), -1).all(axis=1)))
                raise StrategyError(
                    f"{self.name}: '{field}' must be finite, but {bad} of {len(value)} rows hold NaN or infinity; "
                    "did the training diverge?"
                )

    def _checked_scores(self, scores: FloatArray) -> FloatArray:
        if not np.isfinite(scores).all():
            raise StrategyError(f"{self.name}: {int(np.sum(~np.isfinite(scores)))} scores are not finite.")
        return np.asarray(scores, dtype=np.float64)


def _as_field(name: str, value: Any) -> object:
    if name == "class_names":
        return tuple(str(entry) for entry in value)
    if name in _DETECTIONS or name in _MANY_DETECTIONS:
        many = tuple(value) if name in _MANY_DETECTIONS and not isinstance(value, Detections) else (value,)
        if not all(isinstance(found, Detections) for found in many):
            raise StrategyError(f"PoolOutputs.{name} must hold Detections, but holds {type(many[0]).__name__}.")
        return many if name in _MANY_DETECTIONS else value
    if name == "labelled_unknown":
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise StrategyError(
                f"PoolOutputs.labelled_unknown must be a number of nuclei, 0 or more, but is {value!r}."
            )
        return int(value)
    return _as_array(name, value)


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


def _check_probabilities(name: str, probabilities: npt.NDArray[Any], field: str = "probabilities") -> None:
    low, off = float(probabilities.min()), float(np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max())
    # Half-precision softmax outputs of some ten classes miss 1 by less than this; logits miss it by far.
    if low < 0 or off > 1e-2:
        raise StrategyError(
            f"{name}: '{field}' must be softmax outputs (rows of 0..1 that sum to 1), but the smallest value is "
            f"{low:.3g} and a row misses 1 by {off:.3g}; apply softmax to the logits first."
        )
