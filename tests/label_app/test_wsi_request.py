# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest

from tral_monai.errors import ConfigError
from tral_monai.label_app.wsi_request import output_of, parse_wsi_request

SLIDE = (5000, 4000)

# As QuPath's extension sends it, with its params merged in by MONAI Label.
QUPATH: dict[str, Any] = {
    "model": "tissue",
    "image": "slide_a",
    "output": "asap",
    "level": 0,
    "location": [512, 512],
    "size": [600, 600],
    "tile_size": [1024, 1024],
    "min_poly_area": 30,
    "foreground": [],
    "background": [],
    "max_workers": 1,
}


def regions(**request: Any) -> list[Any]:
    return parse_wsi_request(request).regions(SLIDE)


def test_qupaths_region() -> None:
    request = parse_wsi_request(QUPATH)
    assert request.regions(SLIDE) == [(512, 512, 600, 600)]
    assert request.min_poly_area == 30
    assert request.mpp is None


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [None]),
        ({"location": [0, 0], "size": [0, 0]}, [None]),
        ({"location": None, "size": None, "level": None, "tile_size": None, "min_poly_area": None}, [None]),
        ({"location": [-1, -1], "size": [-1, -1]}, [None]),  # DSA without a region
        ({"location": [-1.0, -1.0], "size": [-1.0, -1.0]}, [None]),
        ({"location": [100, 200], "size": [0, 0]}, [(100, 200, 4900, 3800)]),
        ({"location": [-50, -60], "size": [100, 100]}, [(0, 0, 50, 40)]),
        ({"location": [4900, 3900], "size": [1000, 1000]}, [(4900, 3900, 100, 100)]),
        ({"location": [-10, -10], "size": [9000, 9000]}, [None]),
        ({"location": [10.0, 20.0], "size": [30.0, 40.0]}, [(10, 20, 30, 40)]),
    ],
)
def test_regions_are_cut_at_the_slides_border(request_: dict[str, Any], expected: list[Any]) -> None:
    assert regions(**request_) == expected


def test_dsas_tiles_win_over_the_region_and_those_outside_are_left_out() -> None:
    tiles = [
        {"location": [0, 0], "size": [100, 100]},
        {"location": [6000, 0], "size": [100, 100]},
        {"location": [4950, 0], "size": [100, 100]},
    ]
    assert regions(location=[7, 7], size=[8, 8], wsi_tiles=tiles) == [(0, 0, 100, 100), (4950, 0, 50, 100)]
    assert regions(location=[7, 7], size=[8, 8], wsi_tiles=[]) == [(7, 7, 8, 8)]


def test_the_models_own_settings() -> None:
    request = parse_wsi_request({"undefined_below": 0.3, "min_score": 0.2, "mpp": 0.5}, options=("min_score",))
    assert request.options == {"min_score": 0.2}
    assert request.mpp == 0.5


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"location": [5000, 0], "size": [10, 10]}, r"10 x 10 px at \(5000, 0\) lies outside of the slide, which has"),
        ({"wsi_tiles": [{"location": [0, 4000], "size": [1, 1]}]}, r"at \(0, 4000\) lies outside of the slide"),
        ({"location": "0,0"}, "location must be two whole numbers of level-0 px, but is '0,0'"),
        ({"location": [1]}, r"location must be two whole numbers of level-0 px, but is \[1\]"),
        ({"location": {"x": 1, "y": 2}}, "location must be two whole numbers"),
        ({"location": [0.5, 0]}, r"location must hold whole numbers of a sensible size, but holds 0\.5"),
        ({"location": [True, 0]}, "location must hold whole numbers, but holds True"),
        ({"location": [math.nan, 0]}, "location must hold whole numbers, but holds nan"),
        ({"location": ["a", 0]}, "location must hold whole numbers, but holds 'a'"),
        ({"location": [10**15, 0]}, "of a sensible size, but holds 1000000000000000"),
        ({"size": [0, 100]}, r"size must be two numbers of level-0 px of at least 1, or \[0, 0\] for all.* \[0, 100\]"),
        ({"size": [-5, 100]}, r"size must be two numbers .* but is \[-5, 100\]"),
        ({"level": -1}, "level must be 0 or more, but is -1"),
        ({"level": "low"}, "level must hold whole numbers, but holds 'low'"),
        ({"tile_size": [0, 1024]}, r"tile_size must be two numbers of at least 1, but is \[0, 1024\]"),
        ({"min_poly_area": -1}, "min_poly_area must be 0 or more level-0 px squared, but is -1"),
        ({"wsi_tiles": {"location": [0, 0]}}, "wsi_tiles must be a list of"),
        ({"wsi_tiles": [[0, 0, 1, 1]]}, "wsi_tiles must be a list of"),
        ({"wsi_tiles": [{"location": [0, 0]}]}, r"wsi_tiles\[0\] must have location and size, but has \['location'\]"),
        (
            {"wsi_tiles": [{"location": [0, 0], "size": [0, 1]}]},
            r"wsi_tiles\[0\]\.size must be two numbers of",
        ),
        (
            {"wsi_tiles": [{"location": [0, None], "size": [1, 1]}]},
            r"wsi_tiles\[0\]\.location must hold whole numbers, but holds None",
        ),
        (
            {"wsi_tiles": [{"location": [0, 0], "size": [1, 1]}] * 10_001},
            "wsi_tiles may hold 10000 regions, but holds 10001",
        ),
        ({"mpp": 0}, "mpp must be micrometres per level-0 pixel between 0.01 and 100, .* but is 0"),
        ({"mpp": "0.25"}, "mpp must be micrometres per level-0 pixel .* but is '0.25'"),
        ({"min_score": 2}, "min_score must be a number from 0 to 1, but is 2"),
        ({"min_score": "high"}, "min_score must be a number from 0 to 1, but is 'high'"),
    ],
)
def test_nonsense_is_named(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_wsi_request(request_, options=("min_score",)).regions(SLIDE)


def test_outputs() -> None:
    assert [output_of(name) for name in ("asap", "dsa", "json", None)] == ["asap", "dsa", "json", "json"]
    with pytest.raises(ConfigError, match=r"output must be asap, dsa or json, but is '\.\./x'"):
        output_of("../x")


def test_tiles_all_over_a_slide_are_too_many() -> None:
    tiles = [{"location": [x, y], "size": [50, 50]} for x in range(0, 5000, 100) for y in range(0, 4000, 100)]
    with pytest.raises(ConfigError, match="may ask for 1000 separate regions, but asks for 2000 that are not side by"):
        regions(wsi_tiles=tiles)
    assert len(regions(wsi_tiles=tiles[:1000])) == 1000
