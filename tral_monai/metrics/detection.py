# SPDX-License-Identifier: Apache-2.0
"""Average precision of nucleus detectors, with nuclei that count for nothing, and detections on unknown nuclei.

The rules are those of COCO's evaluation at one overlap (Lin et al. 2014; https://cocodataset.org/#detection-eval):
detections are matched greedily in order of their score, each to the free nucleus of its own class that it overlaps
most, at an IoU of 0.5 or more; precision is made monotone and averaged at 101 recalls. There is no limit of
detections per image. Nuclei that nobody asked for are ignore regions: a detection that found no nucleus of its class
and overlaps an unknown or an ignored one enough counts neither as right nor as wrong, and any number of detections may
lie on one such nucleus (COCO's own ``iscrowd`` goes by the overlap over the detection's area; here it is the IoU).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN, OpenSet
from tral_monai.errors import ConfigError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UNKNOWN_LABEL = -1
"""Truth label of a nucleus of an unknown class."""
IGNORED_LABEL = -2
"""Truth label of a nucleus that counts for nothing."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_PAIRS_AT_ONCE = 4_000_000
_WRONG, _RIGHT, _ON_IGNORED, _ON_UNKNOWN = 0, 1, 2, 3


class _Pairs(NamedTuple):
    """Overlaps above the threshold, best detection first and its best nucleus first: rows (p,) and nuclei (p,)."""

    rows: IntArray
    nuclei: IntArray


def detection_metrics(
    detections: Detections,
    truth_boxes: Sequence[npt.ArrayLike],
    truth_labels: Sequence[npt.ArrayLike],
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    operating_score: float = 0.5,
    without: Sequence[str] = (),
) -> dict[str, float]:
    """How good detections are, by the names that the ledger uses.

    Args:
        detections: what was found in n images.
        truth_boxes: n times (k, 4) boxes in the same pixels.
        truth_labels: n times (k,) class 0 to K - 1, ``UNKNOWN_LABEL`` (-1) or ``IGNORED_LABEL`` (-2).
        classes: K names in the detector's order.
        iou: overlap from which a detection is on a nucleus.
        operating_score: score from which precision, recall, F1 and detections on unknown nuclei are counted.
        without: names of rare classes; for each, the mean AP of the other classes is reported too.

    Returns:
        - ``<class>_ap50``: average precision; NaN for a class without a nucleus in the truth.
        - ``map50``: their mean over the classes that have nuclei, and ``map50_without_<class>``; NaN without any.
        - ``ap50_class_agnostic``: all known classes taken as one.
        - ``<class>_f1`` at the operating score, and ``precision``, ``recall``, ``f1`` of all classes' counts together.
        - ``fp_on_unknown``: detections at the operating score that lie on an unknown nucleus and on none of their own
          class; ``fp_on_unknown_per_nucleus`` divides by the unknown nuclei (NaN without any);
          ``fp_on_unknown_all_scores`` counts all detections.

        The number 50 in the names stands for the default of ``iou`` and follows it (``map75`` for 0.75).

    Raises:
        ConfigError: the lists have other lengths than there are images, a label is out of range, an option is out of
            range, or ``without`` names no class.
    """
    names = tuple(classes)
    if not 0 < iou <= 1:
        raise ConfigError(f"iou must lie above 0 and be 1 at most, but is {iou}")
    strangers = sorted(set(without) - set(names))
    if strangers:
        raise ConfigError(f"without names {strangers}, which are not among the classes {list(names)}")
    boxes, labels, starts = _flat_truth(detections, truth_boxes, truth_labels, len(names))
    found = np.asarray(detections.labels)
    if len(found) and (found.min() < 0 or found.max() >= len(names)):
        raise ConfigError(f"detected classes run from {found.min()} to {found.max()}, but there are {len(names)}")
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.argsort(-np.asarray(detections.scores, dtype=np.float64), kind="stable")] = np.arange(len(found))
    pairs = _overlapping_pairs(detections, boxes, starts, iou, rank)
    confident = np.asarray(detections.scores) >= operating_score
    number = f"{100 * iou:g}"

    metrics: dict[str, float] = {}
    right, claimed, on_unknown, on_unknown_all = 0, 0, 0, 0
    for k, name in enumerate(names):
        mine = found == k
        outcome, positives = _match(pairs, mine, labels == k, labels), int((labels == k).sum())
        metrics[f"{name}_ap{number}"] = _average_precision(outcome[mine], rank[mine], positives)
        counts = np.bincount(outcome[mine & confident], minlength=4)
        metrics[f"{name}_f1"] = _ratio(2 * counts[_RIGHT], counts[_RIGHT] + counts[_WRONG] + positives)
        right, claimed = right + counts[_RIGHT], claimed + counts[_RIGHT] + counts[_WRONG]
        on_unknown += counts[_ON_UNKNOWN]
        on_unknown_all += int((outcome[mine] == _ON_UNKNOWN).sum())
    known, unknown = labels >= 0, int((labels == UNKNOWN_LABEL).sum())
    anything = _match(pairs, np.ones(len(found), dtype=np.bool_), known, labels)
    metrics |= {
        f"map{number}": mean_average_precision(metrics, names, number=number),
        **{f"map{number}_without_{w}": mean_average_precision(metrics, names, [w], number=number) for w in without},
        f"ap{number}_class_agnostic": _average_precision(anything, rank, int(known.sum())),
        "precision": _ratio(right, claimed),
        "recall": _ratio(right, known.sum()),
        "f1": _ratio(2 * right, claimed + known.sum()),
        "fp_on_unknown": float(on_unknown),
        "fp_on_unknown_per_nucleus": _ratio(on_unknown, unknown),
        "fp_on_unknown_all_scores": float(on_unknown_all),
    }
    return metrics


def mean_average_precision(
    metrics: Mapping[str, float], classes: Sequence[str], without: Sequence[str] = (), *, number: str = "50"
) -> float:
    """Mean of ``<class>_ap50`` over the classes for which it is defined; NaN where there is none.

    Args:
        metrics: from :func:`detection_metrics`.
        classes: K names.
        without: classes to leave out, such as one with so few test nuclei that its AP is mostly chance.
        number: the overlap in the metrics' names.
    """
    aps = np.array([metrics[f"{name}_ap{number}"] for name in classes if name not in set(without)], dtype=np.float64)
    aps = aps[~np.isnan(aps)]
    return float(aps.mean()) if len(aps) else float("nan")


def classes_without_nuclei(truth_labels: Sequence[npt.ArrayLike], classes: Sequence[str]) -> list[str]:
    """Known classes that no nucleus of the truth has: their AP is undefined and the mean AP leaves them out."""
    present = {int(label) for labels in truth_labels for label in np.asarray(labels, dtype=np.int64).reshape(-1)}
    return [name for k, name in enumerate(classes) if k not in present]


def truth_of(table: pd.DataFrame, open_set: OpenSet) -> tuple[list[npt.NDArray[np.float32]], list[IntArray]]:
    """Boxes and labels of every row of a table of fields of view, as :func:`detection_metrics` takes them.

    Args:
        table: ``boxes_px`` and ``classes``; class names, or answers of an annotator.
        open_set: which classes are known.

    Returns:
        n times (k, 4) float32 and n times (k,) int64.

    Raises:
        UnknownClassError: a class is neither known nor unknown.
    """
    numbers = {name: k for k, name in enumerate(open_set.known)} | {UNKNOWN: UNKNOWN_LABEL, IGNORED: IGNORED_LABEL}
    boxes = [np.asarray(rows, dtype=np.float32).reshape(-1, 4) for rows in table["boxes_px"]]
    labels = [
        np.array([numbers[name if name == UNKNOWN else open_set.answer(name)] for name in names], dtype=np.int64)
        for names in table["classes"]
    ]
    return boxes, labels


def _flat_truth(
    detections: Detections, truth_boxes: Sequence[npt.ArrayLike], truth_labels: Sequence[npt.ArrayLike], n_classes: int
) -> tuple[FloatArray, IntArray, IntArray]:
    if not len(detections) == len(truth_boxes) == len(truth_labels):
        raise ConfigError(
            f"detections of {len(detections)} images, but boxes of {len(truth_boxes)} and labels of "
            f"{len(truth_labels)}; give one of each per image"
        )
    boxes = [np.asarray(rows, dtype=np.float64).reshape(-1, 4) for rows in truth_boxes]
    labels = [np.asarray(rows, dtype=np.int64).reshape(-1) for rows in truth_labels]
    for image, (rows, names) in enumerate(zip(boxes, labels, strict=True)):
        if len(rows) != len(names):
            raise ConfigError(f"image {image} has {len(rows)} true boxes but {len(names)} labels; give one per box")
    flat = np.concatenate([np.empty(0, dtype=np.int64), *labels])
    if len(flat) and (flat.min() < IGNORED_LABEL or flat.max() >= n_classes):
        raise ConfigError(
            f"true labels run from {flat.min()} to {flat.max()}, but must be 0 to {n_classes - 1}, {UNKNOWN_LABEL} "
            f"(unknown) or {IGNORED_LABEL} (ignored)"
        )
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in boxes], dtype=np.int64)])
    return np.concatenate([np.empty((0, 4)), *boxes]), flat, starts


def _overlapping_pairs(
    detections: Detections, boxes: FloatArray, starts: IntArray, iou: float, rank: IntArray
) -> _Pairs:
    found = np.asarray(detections.boxes_px, dtype=np.float64)
    rows, nuclei, overlaps = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for image in range(len(detections)):
        low, high = int(starts[image]), int(starts[image + 1])
        end = int(detections.offsets[image + 1])
        step = max(1, _PAIRS_AT_ONCE // max(high - low, 1))
        for first in range(int(detections.offsets[image]), end if high > low else 0, step):
            overlap = _iou(found[first : min(first + step, end)], boxes[low:high])
            row, nucleus = np.nonzero(overlap >= iou)
            rows.append(row + first)
            nuclei.append(nucleus + low)
            overlaps.append(overlap[row, nucleus])
    row, nucleus, overlap = np.concatenate(rows), np.concatenate(nuclei), np.concatenate(overlaps)
    # Of nuclei that are overlapped alike COCO takes the last one.
    order = np.lexsort((-nucleus, -overlap, rank[row]))
    return _Pairs(row[order], nucleus[order])


def _iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Overlaps (a, b) of boxes (a, 4) and (b, 4); 0 where a box has no area."""
    area = [(boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0) for boxes in (first, second)]
    width = np.minimum(first[:, None, 2], second[None, :, 2]) - np.maximum(first[:, None, 0], second[None, :, 0])
    height = np.minimum(first[:, None, 3], second[None, :, 3]) - np.maximum(first[:, None, 1], second[None, :, 1])
    common = width.clip(0) * height.clip(0)
    union = area[0][:, None] + area[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _match(pairs: _Pairs, mine: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], labels: IntArray) -> IntArray:
    """What became of each detection (B,); ``mine`` (B,) are the detections and ``wanted`` (G,) their nuclei."""
    outcome = np.full(len(mine), _WRONG, dtype=np.int64)
    of_mine = mine[pairs.rows]
    region = np.flatnonzero(of_mine & (labels[pairs.nuclei] < 0))[::-1]  # backwards: the best one is written last
    unknown = labels[pairs.nuclei[region]] == UNKNOWN_LABEL
    outcome[pairs.rows[region]] = np.where(unknown, _ON_UNKNOWN, _ON_IGNORED)
    own = of_mine & wanted[pairs.nuclei]
    done, taken = np.zeros(len(mine), dtype=np.bool_), np.zeros(len(labels), dtype=np.bool_)
    for row, nucleus in zip(pairs.rows[own].tolist(), pairs.nuclei[own].tolist(), strict=True):
        if not done[row] and not taken[nucleus]:
            done[row] = taken[nucleus] = True
    outcome[done] = _RIGHT
    return outcome


def _average_precision(outcome: IntArray, rank: IntArray, positives: int) -> float:
    """COCO's 101-point interpolation over the detections that count."""
    if positives == 0:
        return float("nan")
    ordered = outcome[np.argsort(rank)]
    right = np.cumsum(ordered[(ordered == _RIGHT) | (ordered == _WRONG)] == _RIGHT)
    if not len(right):
        return 0.0
    precision = right / np.arange(1, len(right) + 1)
    best_from_here = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best_from_here[np.searchsorted(right / positives, _RECALLS, side="left")].mean())


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
