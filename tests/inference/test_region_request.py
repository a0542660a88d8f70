# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from tral_monai.errors import ConfigError
from tral_monai.inference.region_request import RegionRequestd, region_of


@pytest.mark.parametrize(
    ("request_", "region"),
    [
        ({"location": [100, 50], "size": [600, 400], "level": 2}, (100, 50, 600, 400)),
        ({"location": (0, 0), "size": (600, 400)}, (0, 0, 600, 400)),
        ({"location": [-10.0, 0], "size": [20.0, 30]}, (-10, 0, 20, 30)),
        ({"location": [0, 0], "size": [0, 0]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("path", ["s/a b.tif", Path("s/a b.tif")])
def test_what_was_asked_comes_out_as_it_went_in(path: Any, request_: dict[str, Any], region: Any) -> None:
    data = RegionRequestd()({"image": path, "model": "m", **request_})
    assert data["model"] == "m"
    # What MONAI Label does with it before it calls the inferer.
    assert torch.is_tensor(data["image"])
    assert region_of(data["image"][None].to(torch.device("cpu"))) == ("s/a b.tif", region)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": np.zeros((2, 2, 3))}, "image is a ndarray; ask for an image of the server's folder"),
        ({}, "image is a NoneType"),
        ({"image": "a.tif", "location": [1]}, r"location must be two whole numbers of level-0 pixels, but is \[1\]"),
        ({"image": "a.tif", "location": [1, 2.5]}, "location must be two whole numbers"),
        ({"image": "a.tif", "location": [True, 2]}, "location must be two whole numbers"),
        ({"image": "a.tif", "size": "12"}, "size must be two whole numbers"),
        ({"image": "a.tif", "size": 12}, "size must be two whole numbers"),
        ({"image": "a.tif", "location": [5, 5]}, "at least 1 x 1 px, but its size is 0 x 0"),
        ({"image": "a.tif", "location": [5, 5], "size": [10, -1]}, "its size is 10 x -1"),
    ],
)
def test_what_is_no_region_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionRequestd()(data)


@pytest.mark.parametrize("image", [torch.zeros(4), MetaTensor(torch.zeros(4)), "a.tif"])
def test_only_a_request_is_read_as_a_region(image: Any) -> None:
    with pytest.raises(ConfigError, match="expected a region of a slide, .*use RegionRequestd"):
        region_of(image)
