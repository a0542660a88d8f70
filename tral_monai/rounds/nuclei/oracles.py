# SPDX-License-Identifier: Apache-2.0
"""Oracles for fields of view: who draws the boxes, says what is in them, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.data.nuclei.fov_table import fov_size_px
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN, OpenSet
from tral_monai.errors import ConfigError, PoolError
from tral_monai.metrics.annotation_cost import AnnotationTime

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FieldAnswers:
    """What an oracle drew and said.

    Attributes:
        ids: (n,) the fields of view asked for, in the order asked.
        boxes_px: n times (k, 4) float32 boxes in pixels of the field of view.
        answers: n times k answers: a known class, ``unknown`` or ``ignored``.
        cost_boxes: (n,) boxes drawn.
        cost_minutes: (n,) annotator minutes.
    """

    ids: IntArray
    boxes_px: tuple[Boxes, ...]
    answers: tuple[tuple[str, ...], ...]
    cost_boxes: FloatArray
    cost_minutes: FloatArray

    @classmethod
    def charged(
        cls, ids: IntArray, boxes_px: Sequence[Boxes], answers: Sequence[tuple[str, ...]], time: AnnotationTime
    ) -> FieldAnswers:
        """Answers with their cost.

        Every box costs a box, also those around unknown nuclei and around ambiguous ones (``ignored``): somebody had
        to draw them. Only known nuclei cost the time to say a class.
        """
        boxes = np.array([len(rows) for rows in boxes_px], dtype=np.float64)
        known = [sum(name not in (UNKNOWN, IGNORED) for name in names) for names in answers]
        return cls(ids, tuple(boxes_px), tuple(answers), boxes, time.minutes(boxes, known))


@runtime_checkable
class FieldOracle(Protocol):
    """Answers queries for fields of view.

    Attributes:
        time: what its work costs.
    """

    time: AnnotationTime

    def label(self, ids: Sequence[int] | IntArray) -> FieldAnswers:
        """Draw and name the nuclei of some fields of view."""
        ...


class ArchiveFieldOracle:
    """Annotations exist already: known classes come back by name, all others as ``unknown``.

    Args:
        table: fields of view with true classes.
        open_set: which classes the annotator is asked to tell apart.
        time: what drawing and naming costs.

    Raises:
        UnknownClassError: a class of the table is neither known nor unknown.
    """

    def __init__(self, table: pd.DataFrame, open_set: OpenSet, *, time: AnnotationTime | None = None) -> None:
        self.time = time or AnnotationTime()
        rows = zip(table["id"], table["boxes_px"], table["classes"], strict=True)
        self._answers = {
            int(number): (np.asarray(boxes, dtype=np.float32).reshape(-1, 4), open_set.answers(names))
            for number, boxes, names in rows
        }

    def label(self, ids: Sequence[int] | IntArray) -> FieldAnswers:
        """The recorded nuclei.

        Raises:
            PoolError: a field of view is not in the archive.
        """
        asked = np.asarray(ids, dtype=np.int64)
        missing = [int(number) for number in asked if int(number) not in self._answers]
        if missing:
            raise PoolError(f"the archive has no field of view {missing[0]} ({len(missing)} missing in all)")
        found = [self._answers[int(number)] for number in asked]
        return FieldAnswers.charged(asked, [boxes for boxes, _ in found], [names for _, names in found], self.time)


class NoisyFieldOracle:
    """Another oracle seen through a hasty annotator: wrong classes, missed nuclei, boxes that are a little off.

    A missed nucleus is not drawn and costs nothing; in training it is background. Nuclei answered ``ignored`` may be
    missed and shift too, but keep their answer. The same field of view is always answered in the same way.

    Args:
        oracle: the oracle that is right.
        table: the fields of view, for their sizes: boxes stay inside.
        open_set: its known classes, and ``unknown`` as the last, are what may be confused.
        rate: chance of a wrong answer, spread evenly over the other answers; unused where ``confusion`` is given.
        confusion: (K + 1, K + 1) rows of chances, ``confusion[truth][given]``, the last row and column ``unknown``.
        missed: chance that a nucleus is not drawn.
        jitter_px: each side of a box is moved by up to so many pixels, uniformly, in or out.
        seed: of the errors.

    Raises:
        ConfigError: an option is out of range, or the confusion rows are not chances.
    """

    def __init__(
        self,
        oracle: FieldOracle,
        table: pd.DataFrame,
        open_set: OpenSet,
        *,
        rate: float = 0.1,
        confusion: Sequence[Sequence[float]] | None = None,
        missed: float = 0.1,
        jitter_px: float = 2.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= missed < 1:
            raise ConfigError(f"missed must lie in [0, 1), but is {missed}")
        if not 0 <= jitter_px < np.inf:
            raise ConfigError(f"jitter_px must be 0 or more, but is {jitter_px}")
        self.time = oracle.time
        self._oracle, self._missed, self._jitter_px, self._seed = oracle, missed, float(jitter_px), seed
        self._names = (*open_set.known, UNKNOWN)
        self._cumulative = _confusion(len(self._names), rate, confusion).cumsum(axis=1)
        sizes = fov_size_px(table)
        self._sizes = {int(number): size for number, size in zip(table["id"], sizes, strict=True)}

    def label(self, ids: Sequence[int] | IntArray) -> FieldAnswers:
        """The wrapped oracle's answers with errors."""
        right = self._oracle.label(ids)
        boxes_px, answers = [], []
        for number, boxes, names in zip(right.ids.tolist(), right.boxes_px, right.answers, strict=True):
            generator = np.random.default_rng([self._seed, number])
            # One draw of everything for every nucleus, so that one error's rate does not change the other errors.
            seen = generator.random(len(boxes)) >= self._missed
            draws, shifts = generator.random(len(boxes)), generator.uniform(-1, 1, (len(boxes), 4))
            boxes_px.append(self._moved(boxes, shifts, self._sizes[number])[seen])
            answers.append(tuple(self._said(name, draws[i]) for i, name in enumerate(names) if seen[i]))
        return FieldAnswers.charged(right.ids, boxes_px, answers, self.time)

    def _said(self, name: str, draw: float) -> str:
        if name == IGNORED:
            return name
        chances = self._cumulative[self._names.index(name)]
        return self._names[min(int(np.searchsorted(chances, draw, side="right")), len(self._names) - 1)]

    def _moved(self, boxes: Boxes, shifts: FloatArray, size: IntArray) -> Boxes:
        """Moved boxes, clipped to the field of view; one that would shrink to under half its side stays as it was."""
        limit = np.concatenate([size, size]).astype(np.float64)
        moved = np.clip(boxes + self._jitter_px * shifts, 0, limit)
        small = ((moved[:, 2:] - moved[:, :2]) < (boxes[:, 2:] - boxes[:, :2]) / 2).any(axis=1)
        return np.where(small[:, None], boxes, moved).astype(np.float32)


def get_field_oracle(
    name: str,
    table: pd.DataFrame,
    open_set: OpenSet,
    *,
    seconds_per_image: float | None = None,
    seconds_per_box: float | None = None,
    seconds_per_class: float | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> FieldOracle:
    """An oracle by name: ``archive``, or ``noisy`` with the options of :class:`NoisyFieldOracle`.

    Args:
        name: the oracle.
        table: fields of view of the pool with true classes.
        open_set: which classes are known.
        seconds_per_image: see :class:`~tral_monai.metrics.annotation_cost.AnnotationTime`; None takes its default.
        seconds_per_box: the same.
        seconds_per_class: the same.
        seed: of the noise.
        options: ``rate``, ``confusion``, ``missed`` and ``jitter_px`` of ``noisy``.

    Raises:
        ConfigError: no oracle has that name, or it has no such option.
    """
    given = {
        "seconds_per_image": seconds_per_image,
        "seconds_per_box": seconds_per_box,
        "seconds_per_class": seconds_per_class,
    }
    time = AnnotationTime(**{key: value for key, value in given.items() if value is not None})
    allowed = {"archive": set(), "noisy": {"rate", "confusion", "missed", "jitter_px"}}
    if name not in allowed:
        raise ConfigError(f"no oracle for fields of view is called '{name}'; choose one of {sorted(allowed)}")
    options = options or {}
    strange = sorted(set(options) - allowed[name])
    if strange:
        raise ConfigError(f"the oracle '{name}' has no option {strange}; it has {sorted(allowed[name]) or 'none'}")
    archive = ArchiveFieldOracle(table, open_set, time=time)
    return archive if name == "archive" else NoisyFieldOracle(archive, table, open_set, seed=seed, **options)


def _confusion(answers: int, rate: float, confusion: Sequence[Sequence[float]] | None) -> FloatArray:
    if confusion is None:
        if not 0 <= rate <= 1:
            raise ConfigError(f"the noise rate must lie in 0..1, but is {rate}")
        matrix = np.full((answers, answers), rate / max(answers - 1, 1))
        np.fill_diagonal(matrix, 1 - rate)
        return matrix
    matrix = np.asarray(confusion, dtype=np.float64)
    if matrix.shape != (answers, answers) or (matrix < 0).any():
        raise ConfigError(
            f"confusion must be {answers} x {answers} chances (the known classes, then unknown), but is {confusion}"
        )
    if not np.allclose(matrix.sum(axis=1), 1.0):
        raise ConfigError(f"each row of confusion must sum to 1, but they sum to {matrix.sum(axis=1).tolist()}")
    return matrix
