# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from tral_monai.errors import ConfigError
from tral_monai.metrics.classification import class_scores, classification_metrics, confusion_matrix

# Truth 0: 3 right, 1 taken for 1. Truth 1: 2 right, 2 taken for 0. Class 2: neither true nor predicted.
MATRIX = [[3, 1, 0], [2, 2, 0], [0, 0, 0]]


def test_matrix_by_hand() -> None:
    m = confusion_matrix([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 1, 1], 3)
    assert m.tolist() == MATRIX
    assert m.dtype == np.int64


def test_scores_by_hand() -> None:
    s = class_scores(MATRIX)
    assert s.precision[:2].tolist() == pytest.approx([3 / 5, 2 / 3])
    assert s.recall[:2].tolist() == [0.75, 0.5]
    assert s.fnr[:2].tolist() == [0.25, 0.5]
    assert s.f1[:2].tolist() == pytest.approx([6 / 9, 4 / 7])
    assert s.false_negatives.tolist() == [1, 2, 0]
    assert s.positives.tolist() == [4, 4, 0]
    assert s.f1_micro == 5 / 8
    assert s.f1_macro == pytest.approx((6 / 9 + 4 / 7) / 2)


def test_a_class_without_truth_and_prediction_is_undefined_and_left_out() -> None:
    s = class_scores(MATRIX)
    for values in (s.precision, s.recall, s.fnr, s.f1):
        assert np.isnan(values[2])


def test_a_class_that_is_predicted_but_never_true_counts_as_zero() -> None:
    s = class_scores([[1, 1], [0, 0]])
    assert s.f1.tolist() == pytest.approx([2 / 3, 0])
    assert np.isnan(s.recall[1])
    assert s.f1_macro == pytest.approx(1 / 3)


def test_no_sample_at_all_is_undefined() -> None:
    s = class_scores(np.zeros((2, 2), dtype=int))
    assert np.isnan(s.f1_macro)
    assert np.isnan(s.f1_micro)


@pytest.mark.parametrize("seed", range(20))
def test_against_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c, n = int(rng.integers(2, 7)), int(rng.integers(1, 60))
    truth, predicted = rng.integers(0, c, size=n), rng.integers(0, c, size=n)
    present = np.union1d(truth, predicted)
    m = confusion_matrix(truth, predicted, c)
    assert (m == sk.confusion_matrix(truth, predicted, labels=range(c))).all()
    s = class_scores(m)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p, r, f, _ = sk.precision_recall_fscore_support(truth, predicted, labels=present, zero_division=np.nan)
        np.testing.assert_allclose(s.precision[present], p)
        np.testing.assert_allclose(s.recall[present], r)
        np.testing.assert_allclose(s.f1[present], f)
        assert s.f1_micro == pytest.approx(sk.accuracy_score(truth, predicted))
        assert s.f1_micro == pytest.approx(sk.f1_score(truth, predicted, average="micro"))
        assert s.f1_macro == pytest.approx(sk.f1_score(truth, predicted, average="macro"))


def test_names_of_the_ledger_without_undefined_values() -> None:
    named = classification_metrics(MATRIX, ["Blood", "Stroma", "Background"])
    assert named == {
        "f1_micro": 0.625,
        "f1_macro": pytest.approx((6 / 9 + 4 / 7) / 2),
        "Blood_f1": pytest.approx(6 / 9),
        "Blood_fnr": 0.25,
        "Stroma_f1": pytest.approx(4 / 7),
        "Stroma_fnr": 0.5,
    }


def test_empty_lists_count_nothing() -> None:
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [0], 0), "n_classes must be at least 1"),
        (([0, 1], [0], 2), "truth has 2 samples but predicted 1"),
        (([0.5], [0], 2), "truth must hold whole class indices"),
        (([0], [2], 2), "predicted runs from 2 to 2, but there are 2 classes"),
        (([-1], [0], 2), "truth runs from -1 to -1"),
    ],
)
def test_bad_samples(arguments: tuple[list[int], list[int], int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        confusion_matrix(*arguments)


@pytest.mark.parametrize("matrix", [[[1, 2]], [[-1, 0], [0, 1]], [], [1, 2]])
def test_bad_matrices(matrix: list[object]) -> None:
    with pytest.raises(ConfigError, match="A confusion matrix must be square"):
        class_scores(matrix)


def test_one_name_per_class() -> None:
    with pytest.raises(ConfigError, match="2 class names for a confusion matrix of 3 classes"):
        classification_metrics(MATRIX, ["a", "b"])
