# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.map_classes import MapClasses, decide

PAPER = MapClasses(["Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium"])
COLON = MapClasses(["Adenoma", "Damaged", "Mucosa"])


def test_the_papers_six_outputs_keep_their_numbers_and_undefined_is_six() -> None:
    assert PAPER.names == (
        "Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium", "Undefined", "Not analysed",
    )  # fmt: skip
    assert PAPER.of_model.tolist() == [0, 1, 2, 3, 4, 5]
    assert (PAPER.background, PAPER.undefined, PAPER.not_analysed) == (0, 6, 7)


def test_a_model_without_background_is_moved_up_by_one() -> None:
    assert COLON.names == ("Background", "Adenoma", "Damaged", "Mucosa", "Undefined", "Not analysed")
    assert COLON.of_model.tolist() == [1, 2, 3]


def test_background_may_stand_anywhere_among_the_outputs() -> None:
    classes = MapClasses(["Stroma", "Background", "Muscle"])
    assert classes.names[:3] == ("Background", "Stroma", "Muscle")
    assert classes.of_model.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.80, 0.10, 0.10], "Adenoma"),
        ([0.60, 0.30, 0.10], "Adenoma"),  # exactly at the threshold is defined
        ([0.59, 0.30, 0.11], "Undefined"),
        ([0.05, 0.90, 0.05], "Damaged"),  # exactly at the threshold is damaged
        ([0.04, 0.89, 0.07], "Mucosa"),  # below it the second class, although 0.07 is far below 0.6
        ([0.20, 0.70, 0.10], "Adenoma"),
        ([0.20, 0.59, 0.21], "Undefined"),  # uncertain comes first
        ([0.34, 0.33, 0.33], "Undefined"),
    ],
)
def test_rules_by_hand(probabilities: list[float], expected: str) -> None:
    value = decide(np.array([probabilities]), COLON)
    assert COLON.names[value[0]] == expected


def test_rules_can_be_turned_off() -> None:
    uncertain = np.array([[0.3, 0.4, 0.3]])
    assert decide(uncertain, COLON, undefined_below=0.0)[0] == 1  # damaged needs 0.9: the first of the two at 0.3
    assert decide(uncertain, COLON, undefined_below=0.0, damaged_at_least=0.0)[0] == 2


def test_without_a_damaged_class_only_the_undefined_rule_applies() -> None:
    classes = MapClasses(["Stroma", "Muscle"])
    assert decide(np.array([[0.7, 0.3], [0.55, 0.45]]), classes).tolist() == [1, classes.undefined]


def test_a_model_with_one_class_that_is_damaged() -> None:
    classes = MapClasses(["Damaged"])
    assert decide(np.array([[1.0]]), classes).tolist() == [1]


def test_no_tile_gives_no_value() -> None:
    assert decide(np.empty((0, 3)), COLON).shape == (0,)


def test_the_probabilities_are_left_alone() -> None:
    probabilities = np.array([[0.04, 0.89, 0.07]])
    decide(probabilities, COLON)
    assert probabilities.tolist() == [[0.04, 0.89, 0.07]]


@pytest.mark.parametrize("name", ["undefined_below", "damaged_at_least"])
def test_thresholds_are_probabilities(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must lie between 0 and 1, but is 60"):
        decide(np.array([[1.0, 0.0, 0.0]]), COLON, **{name: 60.0})


def test_the_number_of_classes_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"expected probabilities of shape \(n, 3\), but got \(1, 2\)"):
        decide(np.array([[0.5, 0.5]]), COLON)


def test_nan_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must be finite"):
        decide(np.array([[np.nan, 0.5, 0.5]]), COLON)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "needs 1 to 250 model classes, but got 0"),
        (["Stroma", "Stroma"], r"must be unique, but \['Stroma'\]"),
        (["Stroma", "Undefined"], "'Undefined' is kept for the map's own use"),
        (["Not analysed"], "'Not analysed' is kept"),
    ],
)
def test_class_names_are_checked(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MapClasses(names)
