# SPDX-License-Identifier: Apache-2.0
"""Confusion matrix, F1 per class, micro and macro F1, and false negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def confusion_matrix(truth: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> IntArray:
    """Count samples by true class (rows) and predicted class (columns).

    Args:
        truth: (n,) class indices, 0 to n_classes - 1.
        predicted: (n,) class indices.
        n_classes: C, at least 1.

    Returns:
        (C, C) int64.

    Raises:
        ConfigError: Lengths differ, values are not whole numbers, or a class index is out of range.
    """
    if n_classes < 1:
        raise ConfigError(f"n_classes must be at least 1, but is {n_classes}.")
    t, p = (_indices(name, values, n_classes) for name, values in (("truth", truth), ("predicted", predicted)))
    if len(t) != len(p):
        raise ConfigError(f"truth has {len(t)} samples but predicted {len(p)}; give one prediction per sample.")
    return np.bincount(t * n_classes + p, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of a confusion matrix; every value from 0 to 1, undefined ones NaN.

    A ratio 0/0 is undefined: recall and FNR of a class without true samples, precision of a class without predictions,
    F1 of a class with neither. F1 of a class that is predicted but never true, or true but never predicted, is 0.

    Args:
        precision: (C,) TP / (TP + FP).
        recall: (C,) TP / (TP + FN).
        f1: (C,) 2 TP / (2 TP + FP + FN).
        fnr: (C,) FN / (TP + FN), the weight of TRI-AL's query.
        false_negatives: (C,) int64 FN.
        positives: (C,) int64 TP + FN.
        f1_micro: 2 TP / (2 TP + FP + FN) with all classes summed; with one label per sample the same as accuracy.
        f1_macro: Mean F1 over the classes whose F1 is defined.
    """

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    fnr: FloatArray
    false_negatives: IntArray
    positives: IntArray
    f1_micro: float
    f1_macro: float


def class_scores(confusion: npt.ArrayLike) -> ClassScores:
    """Score a confusion matrix (C, C), rows truth, columns prediction.

    Raises:
        ConfigError: It is not square or holds a negative count.
    """
    m = np.asarray(confusion)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or m.size == 0 or (m < 0).any():
        raise ConfigError(f"A confusion matrix must be square with counts >= 0, but has shape {m.shape}: {m.tolist()}.")
    m = m.astype(np.int64)
    hits, true, guessed = m.diagonal(), m.sum(axis=1), m.sum(axis=0)
    f1 = _ratio(2 * hits, true + guessed)
    defined = ~np.isnan(f1)
    return ClassScores(
        precision=_ratio(hits, guessed),
        recall=_ratio(hits, true),
        f1=f1,
        fnr=_ratio(true - hits, true),
        false_negatives=true - hits,
        positives=true,
        f1_micro=float(_ratio(hits.sum(), m.sum())),
        f1_macro=float(f1[defined].mean()) if defined.any() else float("nan"),
    )


def classification_metrics(confusion: npt.ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """Scores by the names that ledger and summary use: `<class>_f1`, `<class>_fnr`, `f1_micro`, `f1_macro`.

    Undefined scores (see `ClassScores`) are left out, so that every value is a number.

    Raises:
        ConfigError: The matrix is not square, or there is not one name per class.
    """
    scores = class_scores(confusion)
    if len(classes) != len(scores.f1):
        raise ConfigError(f"{len(classes)} class names for a confusion matrix of {len(scores.f1)} classes.")
    named = {"f1_micro": scores.f1_micro, "f1_macro": scores.f1_macro}
    for name, f1, fnr in zip(classes, scores.f1, scores.fnr, strict=True):
        named[f"{name}_f1"], named[f"{name}_fnr"] = float(f1), float(fnr)
    return {name: value for name, value in named.items() if not np.isnan(value)}


def _indices(name: str, values: npt.ArrayLike, n_classes: int) -> IntArray:
    array = np.asarray(values).reshape(-1)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(f"{name} must hold whole class indices, but its dtype is {array.dtype}.")
    if array.size and (array.min() < 0 or array.max() >= n_classes):
        raise ConfigError(f"{name} runs from {array.min()} to {array.max()}, but there are {n_classes} classes.")
    return array.astype(np.int64)


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)
