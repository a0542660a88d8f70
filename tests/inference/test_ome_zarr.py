# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from tral_monai.inference.ome_zarr import OMEZarr, mean_levels, mode_levels

NAN = np.nan


def test_a_mean_is_of_the_known_pixels_only() -> None:
    image = np.full((300, 3), NAN, dtype=np.float16)
    image[:2, :2] = [[1.0, 0.5], [NAN, 0.0]]
    image[299, 2] = 0.25
    full, half = mean_levels(image)
    assert full.dtype == half.dtype == np.float32
    np.testing.assert_array_equal(full, image)
    assert half.shape == (150, 2)
    assert half[0, 0] == 0.5  # (1 + 0.5 + 0) / 3
    assert half[149, 1] == 0.25  # beyond the border there is nothing
    assert np.isnan(half).sum() == 298


def test_levels_end_where_one_chunk_holds_all() -> None:
    assert [level.shape for level in mean_levels(np.zeros((256, 256)))] == [(256, 256)]
    assert [level.shape for level in mean_levels(np.zeros((1025, 5)))] == [(1025, 5), (513, 3), (257, 2), (129, 1)]


@pytest.mark.parametrize(
    ("quad", "expected"),
    [
        ([1, 1, 1, 2], 1),
        ([2, 1, 2, 0], 2),
        ([0, 0, 1, 1], 1),  # as frequent: the larger
        ([0, 1, 2, 3], 3),
        ([3, 0, 0, 1], 0),
        ([0, 0, 0, 9], 9),  # never hidden
        ([9, 2, 2, 2], 9),
    ],
)
def test_a_label_is_the_most_frequent_one_unless_one_must_not_be_hidden(quad: list[int], expected: int) -> None:
    labels = np.zeros((258, 2), dtype=np.uint8)
    labels[:2] = np.reshape(quad, (2, 2))
    _, half = mode_levels(labels, never_hidden=9)
    assert half.dtype == np.uint8
    assert half.shape == (129, 1)
    assert half[0, 0] == expected


def test_an_odd_borders_labels_are_their_own() -> None:
    labels = np.zeros((257, 3), dtype=np.uint8)
    labels[256, 2] = 4
    _, half = mode_levels(labels, never_hidden=9)
    assert half[128, 1] == 4


def test_every_level_says_where_its_first_pixel_has_its_centre(tmp_path: Path) -> None:
    image = OMEZarr(tmp_path, name="s", step_level0=100.0, mpp_xy=(0.5, 0.25))
    image.write_image([np.zeros((300, 4))], names=["a"], colours={"a": (255, 0, 16)}, attributes={"note": 1})
    attributes = json.loads((tmp_path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    # 100 slide pixels, y 0.25 um and x 0.5 um each. The pixels 0 to 99 have their middle at 49.5, 0 to 199 at 99.5.
    assert multiscale["datasets"] == [
        {
            "path": "0",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 25.0, 50.0]},
                {"type": "translation", "translation": [0.0, 12.375, 24.75]},
            ],
        },
        {
            "path": "1",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 50.0, 100.0]},
                {"type": "translation", "translation": [0.0, 24.875, 49.75]},
            ],
        },
    ]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert multiscale["version"] == "0.4"
    assert attributes["omero"]["channels"][0]["color"] == "FF0010"
    assert attributes["note"] == 1
    array = json.loads((tmp_path / "0" / ".zarray").read_text())
    assert (array["zarr_format"], array["dimension_separator"], array["dtype"]) == (2, "/", "<f4")
    assert array["chunks"] == [1, 256, 256]
    assert zarr.open_group(str(tmp_path), mode="r")["1"].shape == (1, 150, 2)
