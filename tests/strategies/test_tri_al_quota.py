# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy
from tral_monai.strategies.tri_al_quota import TriALQuota


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _two_classes(first: list[float], **fields: object) -> PoolOutputs:
    """Rows with the given probability of class 0; ids are the rows."""
    p = np.array(first)
    given: dict[str, object] = {"false_negatives": [1, 3], "positives": [10, 10], "class_names": ("Blood", "Stroma")}
    return PoolOutputs(
        ids=np.arange(len(p)),
        probabilities=np.stack([p, 1 - p], axis=1),
        **(given | fields),  # type: ignore[arg-type]
    )


def test_quotas_are_filled_by_predicted_class_most_uncertain_first() -> None:
    # FNR 0.1 : 0.3 of 4 -> 1 blood, 3 stroma. Predicted blood: rows 0-3, the least sure is row 2. Stroma: rows 4-8.
    outputs = _two_classes([0.99, 0.9, 0.6, 0.8, 0.01, 0.45, 0.3, 0.1, 0.4])
    selection = TriALQuota(smoothing="none").select(outputs, 4, _rng())
    chosen = dict(zip(selection.ids.tolist(), selection.class_asked.tolist(), strict=True))
    assert chosen == {2: 0, 5: 1, 8: 1, 6: 1}
    by_id = dict(zip(selection.ids.tolist(), selection.reasons, strict=True))
    assert by_id[2] == "FNR of Blood is 0.10: 1 of 4 asked; predicted, entropy 0.673"
    # Rows of one class are ranked by uncertainty.
    assert selection.ids[selection.class_asked == 1].tolist() == [5, 8, 6]


def test_a_rate_that_was_not_measured_is_said_to_be_none() -> None:
    outputs = _two_classes([0.9, 0.4], false_negatives=[0, 3], positives=[0, 10], labelled_counts=[5, 5])
    blood, stroma = TriALQuota().select(outputs, 2, _rng()).reasons
    assert blood.startswith("FNR of Blood is not known (none held out), taken as 0.32: 1 of 2 asked; ")
    assert stroma.startswith("FNR of Stroma is 0.31: 1 of 2 asked; ")  # both drawn towards what all classes share


def test_quotas_before_any_sample_is_looked_for() -> None:
    outputs = _two_classes([0.5])
    assert TriALQuota(smoothing="none").quotas(outputs, 100).tolist() == [25, 75]


def test_a_class_that_is_predicted_too_rarely_is_filled_by_second_guesses() -> None:
    p = np.array(
        [
            [0.8, 0.1, 0.1],  # 0: predicted 0, the only one
            [0.3, 0.6, 0.1],  # 1: second guess 0
            [0.1, 0.5, 0.4],  # 2
            [0.04, 0.95, 0.01],  # 3: second guess 0, but below min_probability
            [0.45, 0.1, 0.45 + 1e-9],  # 4: second guess 0, likeliest
            [0.0, 0.1, 0.9],  # 5
        ]
    )
    outputs = PoolOutputs(ids=np.arange(6) + 10, probabilities=p, false_negatives=[9, 0, 0], positives=[10, 10, 10])
    selection = TriALQuota(smoothing="none").select(outputs, 3, _rng())
    assert selection.ids.tolist() == [10, 14, 11]
    assert selection.class_asked.tolist() == [0, 0, 0]
    assert "second guess with p 0.45" in selection.reasons[1]


def test_what_is_still_missing_goes_to_classes_with_samples_left() -> None:
    # All asked of class 0; one predicted, no second guess is likely enough: the rest comes from predicted class 1.
    outputs = _two_classes([0.9, 0.01, 0.02, 0.03], false_negatives=[5, 0])
    selection = TriALQuota(smoothing="none").select(outputs, 3, _rng())
    assert selection.ids[selection.class_asked == 0].tolist() == [0]
    assert selection.ids[selection.class_asked == 1].tolist() == [3, 2]
    assert "instead of a class that is hardly predicted" in selection.reasons[-1]


def test_an_output_that_nobody_labels_takes_no_quota() -> None:
    # Class 0 (Background) is neither in the validation split nor labelled; jeffreys would give it a rate of 0.5.
    p = np.full((30, 3), 0.01)
    p[np.arange(30), np.arange(30) % 3] = 0.98
    outputs = PoolOutputs(
        ids=np.arange(30),
        probabilities=p,
        false_negatives=[0, 1, 1],
        positives=[0, 10, 10],
        labelled_counts=[0, 5, 5],
    )
    strategy = TriALQuota(smoothing="jeffreys")
    assert strategy.quotas(outputs, 10).tolist() == [0, 5, 5]
    asked = strategy.select(outputs, 10, _rng()).class_asked
    assert np.bincount(asked, minlength=3).tolist() == [0, 5, 5]


def test_a_labelled_class_without_validation_samples_takes_part() -> None:
    outputs = PoolOutputs(ids=[], false_negatives=[0, 1], positives=[0, 10], labelled_counts=[3, 3])
    # r = 1.5 / 11 = 0.136 for the first, (1 + 10 r) / 20 = 0.118 for the second: 53.6 and 46.4 of 100.
    assert TriALQuota().quotas(outputs, 100).tolist() == [54, 46]


def test_without_a_model_it_says_where_to_start() -> None:
    outputs = dataclasses.replace(_two_classes([0.5]), probabilities=None)
    with pytest.raises(StrategyError, match=r"'probabilities'.*start with 'typiclust'.*or 'random'"):
        TriALQuota().select(outputs, 1, _rng())


@pytest.mark.parametrize("diversity", ["clue", "kcenter"])
def test_diversity_spreads_a_quota_over_the_feature_space(diversity: str) -> None:
    # Predicted class 0, all about equally unsure: 20 samples in one spot, 2 in another, 2 in a third.
    p = 0.55 + 0.001 * np.arange(24)
    features = np.zeros((24, 2))
    features[20:22] = [10, 0]
    features[22:] = [0, 10]
    features += np.random.default_rng(1).normal(size=(24, 2)) * 0.01
    outputs = _two_classes(p.tolist(), features=features, false_negatives=[3, 0])

    def spots(**options: object) -> set[str]:
        selection = get_strategy("tri_al_quota", smoothing="none", diversity_ratio=8, **options).select(
            outputs, 3, _rng()
        )
        return {"b" if i in (20, 21) else "c" if i >= 22 else "a" for i in selection.ids.tolist()}

    assert spots(diversity=diversity) == {"a", "b", "c"}
    assert spots() == {"a"}


def test_kcenter_keeps_away_from_what_is_labelled() -> None:
    features = np.array([[0.0, 0.0], [10.0, 0.0]])
    outputs = _two_classes([0.6, 0.6], features=features, labelled_features=np.array([[10.0, 0.5]]))
    selection = TriALQuota(diversity="kcenter", smoothing="none").select(
        dataclasses.replace(outputs, false_negatives=np.array([1, 0])), 1, _rng()
    )
    assert selection.ids.tolist() == [0]


def test_diversity_ratio_limits_it_to_the_most_uncertain() -> None:
    p = [0.51, 0.52, 0.95]
    outputs = _two_classes(p, features=np.array([[0.0], [0.1], [99.0]]), false_negatives=[3, 0])
    selection = TriALQuota(diversity="kcenter", diversity_ratio=1.0, smoothing="none").select(outputs, 2, _rng())
    assert sorted(selection.ids.tolist()) == [0, 1]


def test_score_is_rate_times_uncertainty() -> None:
    outputs = _two_classes([0.8, 0.3])
    scores = TriALQuota(smoothing="none", measure="least_confidence").score(outputs)
    assert scores == pytest.approx([0.1 * 0.2, 0.3 * 0.3])


def test_one_output_class() -> None:
    outputs = PoolOutputs(ids=[1, 2], probabilities=np.ones((2, 1)), false_negatives=[1], positives=[2])
    assert len(TriALQuota().select(outputs, 2, _rng())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "bald"}, "measure must be one of"),
        ({"diversity": "some"}, "diversity must be one of"),
        ({"smoothing": "bayes"}, "smoothing must be one of"),
        ({"diversity_ratio": 0.5}, "diversity_ratio must lie between 1 and inf"),
        ({"strength": -1}, "strength must lie between 0 and inf"),
        ({"min_probability": 1.5}, "min_probability must lie between 0 and 1"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_strategy("tri_al_quota", **options)
