# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.strategies.options import choice, number, whole


def test_good_values_pass() -> None:
    choice("s", "o", "a", ("a", None))
    assert number("s", "o", 2, low=1) == 2.0
    assert whole("s", "o", 3, low=1) == 3


@pytest.mark.parametrize("value", ["1e-3", None, True, float("nan"), float("inf")])
def test_not_a_number(value: object) -> None:
    with pytest.raises(ConfigError, match="s: o must be a number, but is"):
        number("s", "o", value, low=0)


def test_out_of_range() -> None:
    with pytest.raises(ConfigError, match="s: o must lie between 0 and 1, but is 2"):
        number("s", "o", 2, low=0, high=1)
    with pytest.raises(ConfigError, match="s: o must be a whole number of at least 1, but is 0"):
        whole("s", "o", 0, low=1)
    with pytest.raises(ConfigError, match=r"s: o must be one of \['a'\], but is \['a'\]"):
        choice("s", "o", ["a"], ("a",))
