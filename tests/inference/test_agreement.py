# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tral_monai.errors import AgreementError, ConfigError
from tral_monai.inference.agreement import Agreement, measure_agreement, permitted_differences
from tral_monai.inference.map_classes import MapClasses, decide

LOG3 = math.log(3.0)


def test_classes_and_probabilities_of_logits() -> None:
    reference = torch.tensor([[0.0, LOG3], [LOG3, 0.0], [0.0, LOG3], [0.0, LOG3]])  # 1/4 and 3/4
    other = torch.tensor([[0.0, LOG3], [0.0, 0.0], [LOG3, 0.0], [5.0, 5.0 + LOG3]])
    # The second tile moves by a quarter and keeps its class, which comes first; the third swaps 3/4 and 1/4.
    found = measure_agreement(reference, other)
    assert (found.tiles, found.class_agreement, found.not_finite) == (4, 0.75, 0)
    assert found.largest_probability_difference == pytest.approx(0.5)


def test_probabilities_are_taken_as_they_are() -> None:
    found = measure_agreement(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]), logits=False)
    assert (found.class_agreement, found.largest_probability_difference) == (0.0, 0.25)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_never_agrees(broken: float) -> None:
    both = torch.tensor([[broken, 0.0], [1.0, 0.0]])
    found = measure_agreement(both, both)
    assert found == Agreement(2, 0.5, 1.0, not_finite=1)
    with pytest.raises(AgreementError, match="NaN or infinite for 1; at least 0 % are asked for"):
        found.require(0.0)


def test_the_sentence() -> None:
    assert Agreement(64, 63 / 64, 0.0123).sentence("openvino bf16") == (
        "openvino bf16 gives the class of torch fp32 on 63 of 64 sampled tiles (98.4 %); largest difference of a "
        "probability 0.012"
    )


def test_below_the_floor_it_refuses() -> None:
    agreement = Agreement(64, 63 / 64, 0.25)
    assert (agreement.compared, agreement.differing) == (64, 1)
    agreement.require(63 / 64)
    message = (
        r"compile bf16 gives the class of torch fp32 on 63 of 64 sampled tiles \(98\.4 %\); largest difference of a "
        r"probability 0\.25; at least 99 % are asked for, so that 0 of a sample of 64 may differ; use engine torch in "
        r"precision fp32.* lower min_agreement"
    )
    with pytest.raises(AgreementError, match=message):
        agreement.require(0.99, engine="compile bf16")


@pytest.mark.parametrize(
    ("floor", "sample", "permitted"),
    [(0.99, 128, 1), (0.99, 64, 0), (0.9, 10, 1), (0.95, 100, 5), (0.98, 50, 1), (0.0, 7, 7), (1.0, 1000, 0)],
)
def test_how_many_of_a_sample_may_differ(floor: float, sample: int, permitted: int) -> None:
    assert permitted_differences(floor, sample) == permitted


def test_a_part_of_the_sample_is_judged_by_what_the_whole_permits() -> None:
    Agreement(50, 49 / 50, 0.25).require(0.99, sample=128)  # 98 %, but one of 128 may differ
    with pytest.raises(AgreementError, match="48 of 50 .* so that 1 of a sample of 128 may differ"):
        Agreement(50, 48 / 50, 0.25).require(0.99, sample=128)
    with pytest.raises(AgreementError, match="NaN or infinite for 1"):
        Agreement(50, 49 / 50, 1.0, not_finite=1).require(0.0, sample=128)


def test_what_a_map_shows_is_compared_not_the_most_probable_class() -> None:
    rules = MapClasses(["Stroma", "Muscle", "Damaged"])
    # Undefined below 0.6: the first becomes Stroma. Damaged at 0.92 and 0.88: the second becomes Muscle. The third
    # changes its most probable class, but is Undefined in both.
    reference = np.array([[0.59, 0.30, 0.11], [0.03, 0.05, 0.92], [0.50, 0.40, 0.10], [0.8, 0.1, 0.1]])
    other = np.array([[0.61, 0.28, 0.11], [0.05, 0.07, 0.88], [0.40, 0.50, 0.10], [0.7, 0.2, 0.1]])
    shown = measure_agreement(reference, other, logits=False, shown=lambda values: decide(values, rules))
    assert (shown.class_agreement, shown.differing) == (0.5, 2)
    assert shown.largest_probability_difference == pytest.approx(0.1)
    assert measure_agreement(reference, other, logits=False).class_agreement == 0.75


def test_the_record_is_plain_data() -> None:
    assert json.loads(json.dumps(Agreement(4, 0.75, 0.5).describe())) == {
        "tiles": 4,
        "class_agreement": 0.75,
        "largest_probability_difference": 0.5,
        "not_finite": 0,
    }


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match=r"must both be \(n, C\), but are \(2, 3\) and \(2, 4\)"):
        measure_agreement(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ConfigError, match="at least one tile and class, but there is none"):
        measure_agreement(np.zeros((0, 3)), np.zeros((0, 3)))
