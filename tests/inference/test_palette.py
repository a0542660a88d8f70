# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.palette import class_colours


def test_the_papers_classes_have_the_papers_colours() -> None:
    colours = class_colours(["Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium", "Undefined"])
    assert list(colours.values()) == [
        (0, 0, 0), (128, 0, 0), (0, 130, 200), (60, 180, 75), (240, 50, 230), (245, 130, 48), (128, 128, 128),
    ]  # fmt: skip


def test_other_classes_get_distinct_colours_that_do_not_depend_on_the_run() -> None:
    names = [f"class {number}" for number in range(40)]
    colours = class_colours(["Stroma", *names])
    assert len(set(colours.values())) == 41
    assert colours == class_colours(["Stroma", *names])


def test_given_colours_win() -> None:
    assert class_colours(["Stroma", "Fat"], {"Stroma": [1, 2, 3]})["Stroma"] == (1, 2, 3)


@pytest.mark.parametrize("colour", [[1, 2], [0, 0, 256], [0.5, 0, 0]])
def test_a_colour_is_three_bytes(colour: list[float]) -> None:
    with pytest.raises(ConfigError, match="colour of 'Fat' must be three whole numbers"):
        class_colours(["Fat"], {"Fat": colour})
