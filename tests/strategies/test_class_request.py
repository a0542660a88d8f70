# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.strategies.class_request import class_request, draw_rows, interleave


def test_interleave_by_hand() -> None:
    # Positions 1/8, 3/8, 5/8, 7/8 and 1/4, 3/4.
    parts = [np.array([0, 1, 2, 3]), np.array([10, 11])]
    assert interleave(parts).tolist() == [0, 10, 1, 2, 11, 3]


def test_interleave_nothing() -> None:
    assert interleave([]).tolist() == []
    assert interleave([np.empty(0, dtype=np.intp), np.array([3])]).tolist() == [3]


def test_rows_from_the_head_or_at_random() -> None:
    classes = np.array([1, 0, 1, 1, 0])
    assert [rows.tolist() for rows in draw_rows(classes, np.array([1, 2]), None)] == [[1], [0, 2]]
    drawn = {tuple(draw_rows(classes, np.array([0, 1]), np.random.default_rng(s))[1].tolist()) for s in range(30)}
    assert drawn == {(0,), (2,), (3,)}


def test_scores_and_reasons_are_those_of_the_class() -> None:
    selection = class_request(
        np.array([7, 8, 9]),
        np.array([0, 1, 1]),
        np.array([1, 1]),
        None,
        class_scores=np.array([0.5, 0.25]),
        class_reasons=["a", "b"],
    )
    assert selection.ids.tolist() == [7, 8]
    assert selection.scores.tolist() == [0.5, 0.25]
    assert selection.reasons == ("a", "b")
