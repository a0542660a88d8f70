# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.networks.normalization import PRESETS, Normalization, resolve_normalization

RAW = PRESETS["raw255"]


def test_presets_are_in_grey_levels() -> None:
    assert Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) == RAW
    assert PRESETS["minus_one_one"] == Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    assert PRESETS["imagenet"].mean == pytest.approx((123.675, 116.28, 103.53))
    assert PRESETS["imagenet"].std == pytest.approx((58.395, 57.12, 57.375))
    assert PRESETS["unit"].std == (255.0, 255.0, 255.0)


def test_resolving() -> None:
    assert resolve_normalization("auto", auto=PRESETS["unit"]) == PRESETS["unit"]
    assert resolve_normalization("raw255", auto=PRESETS["unit"]) == RAW
    own = resolve_normalization({"mean": [1, 2, 3], "std": [4, 5, 6]}, auto=RAW)
    assert own == Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert resolve_normalization(own, auto=RAW) is own


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("imagnet", r"must be one of \['auto', 'raw255', .* but is 'imagnet'"),
        ({"mean": [1, 2, 3]}, "mapping with the keys mean and std"),
        ({"mean": [1, 2], "std": [1, 1, 1]}, "mean must be three finite numbers"),
        ({"mean": [1, 2, float("nan")], "std": [1, 1, 1]}, "mean must be three finite numbers"),
        ({"mean": [1, 2, 3], "std": [1, 0, 1]}, "std must be above 0"),
    ],
)
def test_unusable_values_are_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_normalization(value, auto=RAW)  # type: ignore[arg-type]
