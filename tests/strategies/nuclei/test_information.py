# SPDX-License-Identifier: Apache-2.0
"""Eqs. 4 to 6 of OSAL-ND by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import StrategyError
from tral_monai.strategies.nuclei.information import (
    class_information,
    evidential_uncertainty,
    known_counts,
    location_information,
)


def test_eq_4_by_hand() -> None:
    # Q = (4 + 1) + (1 + 1) + (1 + 1) = 9: beliefs 4/9, 1/9, 1/9 leave 3/9. Without evidence all is uncertain.
    assert evidential_uncertainty(np.array([[4.0, 1, 1], [0, 0, 0], [27, 0, 0]])) == pytest.approx([1 / 3, 1, 0.1])


def test_eq_4_is_one_less_the_beliefs() -> None:
    e = np.random.default_rng(0).gamma(1, 4, size=(50, 5))
    q = (e + 1).sum(axis=1)
    assert evidential_uncertainty(e) == pytest.approx(1 - (e / q[:, None]).sum(axis=1))


def test_logits_instead_of_evidence_are_refused() -> None:
    with pytest.raises(StrategyError, match=r"evidence must be 0 or more, but the smallest is -2"):
        evidential_uncertainty(np.array([[1.0, -2.0]]))


def test_eq_5_by_hand() -> None:
    found = boxes([2, 0, 1], evidence=[[4.0, 1, 1], [0, 0, 0], [27, 0, 0]])
    assert class_information(found) == pytest.approx([(1 / 3 + 1) / 2, 0, 0.1])


def test_eq_6_by_hand() -> None:
    found = boxes(
        [2, 0, 1],
        boxes_px=[[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]],
        proposals_px=[[0, 0, 10, 10], [5, 0, 15, 10], [2, 2, 8, 8]],
    )
    # 1 - 1 and 1 - 1/3; none; 1 - 0.36.
    assert location_information(found) == pytest.approx([1 / 3, 0, 0.64])


def test_known_counts_by_hand() -> None:
    found = boxes([3, 0, 1], prototype_distances=[[1.0, 2], [2, 2], [3, 1], [0, 5]])
    assert known_counts(found).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("function", "column"),
    [(class_information, "evidence"), (location_information, "proposals_px"), (known_counts, "prototype_distances")],
)
def test_a_missing_column_is_named(function, column) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StrategyError, match=f"{column}'.* ask (it|the detector) for '{column}' too"):
        function(boxes([1]))
