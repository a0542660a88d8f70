# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.networks.nuclei.settings import DetectorSettings, detector_settings


def test_default_anchors_span_nuclei_of_3_to_20_micrometres() -> None:
    sizes = DetectorSettings().anchor_sizes()  # five levels, one size each, 12 to 80 px at 0.25
    assert [len(level) for level in sizes] == [1] * 5
    assert sizes[0][0] == pytest.approx(12)
    assert sizes[2][0] == pytest.approx((12 * 80) ** 0.5)
    assert sizes[-1][0] == pytest.approx(80)
    small = DetectorSettings(strides=(4, 8, 16), pool_level=False, fov_mpp=0.5, upsample=2.0).anchor_sizes()
    assert [len(level) for level in small] == [2, 2, 2]
    assert small[0][0] == pytest.approx(12)  # 3 um are 6 px, enlarged twice


def test_given_anchors_are_enlarged_with_the_image() -> None:
    settings = DetectorSettings(strides=(8,), pool_level=False, anchor_sizes_px=((10, 20),), upsample=1.5)
    assert settings.anchor_sizes() == ((15.0, 30.0),)


def test_lists_of_a_config_become_tuples_and_plain_values_again() -> None:
    settings = detector_settings({"strides": [4, 8], "pool_level": False, "anchor_sizes_px": [[8], [16]]})
    assert settings.strides == (4, 8)
    assert settings.level_strides == (4, 8)
    assert settings.as_dict()["anchor_sizes_px"] == [[8.0], [16.0]]
    assert detector_settings(settings.as_dict()) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stride": (4, 8)}, "no setting 'stride'; near it: strides"),
        ({"strides": (4, 6)}, r"powers of 2 from 2 up, but are \[4, 6\]"),
        ({"strides": (4, 16)}, r"must double from one to the next, but are \[4, 16\]"),
        ({"strides": ()}, "powers of 2"),
        ({"proposals": (100,)}, r"proposals must be \(in training, in inference\)"),
        ({"fpn_channels": 0}, "fpn_channels must be above 0, but is 0"),
        ({"anchor_ratios": (1.0, -1.0)}, "anchor_ratios must be above 0"),
        ({"nms_iou": 1.5}, "nms_iou must be from 0 to 1, but is 1.5"),
        ({"rpn_bg_iou": 0.8}, "rpn_bg_iou must not be above rpn_fg_iou: 0.8 > 0.7"),
        ({"evidence": "exp"}, "'softplus' or 'relu', but is 'exp'"),
        ({"evidential_data_term": "mse"}, "'digamma' or 'log', but is 'mse'"),
        ({"projection": 0}, "projection must be a length above 0 or None"),
        ({"prototype_weight": -0.1}, "prototype_weight.*must be 0 or more"),
        ({"anchor_sizes_px": ((8.0,), (16.0,))}, "each of the 5 levels"),
        ({"strides": (4, 8), "pool_level": False, "anchor_sizes_px": ((8.0,), (16.0, 20.0))}, "all of one length"),
    ],
)
def test_bad_settings(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector_settings(given)
