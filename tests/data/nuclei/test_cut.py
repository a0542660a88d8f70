# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.cut import common_mpp, cut_fields, outside_field, tile_edges
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS, fov_size_px
from tral_monai.errors import CohortError, ConfigError


@pytest.mark.parametrize(
    ("side", "tile", "edges"),
    [
        (1000, 250, [0, 250, 500, 750, 1000]),
        (1000, 256, [0, 250, 500, 750, 1000]),  # not three of 256 and a rest of 232
        (1000, 300, [0, 333, 667, 1000]),
        (520, 256, [0, 260, 520]),  # not two of 256 and a sliver of 8
        (383, 256, [0, 383]),
        (384, 256, [0, 192, 384]),
        (40, 256, [0, 40]),
        (500, 113.6, [0, 125, 250, 375, 500]),
        (500, None, [0, 500]),
    ],
)
def test_tiles_are_of_nearly_one_size(side, tile, edges):
    assert tile_edges(side, tile).tolist() == edges


@given(side=st.integers(1, 5000), tile=st.floats(16, 1000))
def test_no_tile_is_a_sliver(side, tile):
    sizes = np.diff(tile_edges(side, tile))
    assert sizes.sum() == side
    assert sizes.max() - sizes.min() <= 1
    if side >= tile:
        assert 0.75 * tile - 1 <= sizes.min() <= sizes.max() <= 1.5 * tile + 1


def test_a_nucleus_belongs_to_the_tile_with_its_centre(make_field):
    # Two tiles of 50 px side by side. The first nucleus straddles the cut at x = 50 with its centre (52) on the right.
    field = make_field(nuclei=[("A", 42, 10, 62, 20), ("B", 10, 10, 20, 30), ("C", 40, 0, 60, 10)], size=(100, 50))
    table = cut_fields([field], fov_mpp=0.25, fov_px=50)
    left, right = table.iloc[0], table.iloc[1]
    assert list(table.columns) == list(FOV_COLUMNS)
    assert table[["id", "left_px", "top_px", "width_px", "height_px"]].values.tolist() == [
        [0, 0, 0, 50, 50],
        [1, 50, 0, 50, 50],
    ]
    assert left["classes"] == ("ignored", "B", "ignored")
    assert left["boxes_px"].tolist() == [[42, 10, 50, 20], [10, 10, 20, 30], [40, 0, 50, 10]]
    # C's centre lies on the cut itself (50), which is the first column of the right tile.
    assert right["classes"] == ("A", "C")
    assert right["boxes_px"].tolist() == [[0, 10, 12, 20], [0, 0, 10, 10]]


def test_boxes_are_scaled_to_the_resolution_that_the_detector_sees(make_field):
    field = make_field(nuclei=[("A", 60, 10, 80, 20)], size=(100, 100), mpp=0.25, left_px=1000, top_px=2000)
    table = cut_fields([field], fov_mpp=0.5, fov_px=25)  # 25 px at 0.5 are 50 px of the image
    assert table[["left_px", "top_px"]].values.tolist() == [[1000, 2000], [1050, 2000], [1000, 2050], [1050, 2050]]
    assert fov_size_px(table).tolist() == [[25, 25]] * 4
    assert table.iloc[1]["boxes_px"].tolist() == [[5, 5, 15, 10]]
    assert table["fov_mpp"].tolist() == [0.5] * 4


def test_the_scale_is_that_of_whole_pixels(make_field):
    # 99 px at 0.25 are 49.5 px at 0.5: the picture will have 50, so the box of the whole field ends at 50.
    field = make_field(nuclei=[("A", 0, 0, 99, 99)], size=(99, 99))
    table = cut_fields([field], fov_mpp=0.5, fov_px=None)
    assert fov_size_px(table).tolist() == [[50, 50]]
    assert table.iloc[0]["boxes_px"].tolist() == [[0, 0, 50, 50]]


def test_small_and_nameless_nuclei_are_ignored(make_field):
    nuclei = [("A", 10, 10, 14, 14), ("A", 10, 30, 13.5, 40), ("A?", 50, 50, 70, 70), ("A", 5, 5, 5.5, 20)]
    row = cut_fields([make_field(nuclei=nuclei)], fov_mpp=0.25, fov_px=None, min_box_px=4).iloc[0]
    assert row["classes"] == ("A", "ignored", "ignored")  # the last is under a pixel wide and not listed
    # At twice the pixel size the first falls under the limit.
    coarse = cut_fields([make_field(nuclei=nuclei[:1])], fov_mpp=0.5, fov_px=None, min_box_px=4).iloc[0]
    assert coarse["classes"] == ("ignored",)


def test_the_minimum_counts_after_clipping(make_field):
    # Centre at 47.5 px (left tile of 50), clipped there from 8 px to 6.5 px.
    field = make_field(nuclei=[("A", 43.5, 10, 51.5, 20)], size=(100, 50))
    for least, answer in ((6.5, "A"), (6.6, "ignored")):
        table = cut_fields([field], fov_mpp=0.25, fov_px=50, min_box_px=least)
        assert table["classes"].tolist() == [(answer,), ("ignored",)]


def test_a_box_beyond_the_field_is_clipped_and_one_outside_left_out(make_field):
    field = make_field(nuclei=[("A", 90, 90, 130, 130), ("B", 100, 0, 120, 10), ("B", 20, 20, 20, 30)])
    assert outside_field(field).tolist() == [False, True, True]
    row = cut_fields([field], fov_mpp=0.25, fov_px=None).iloc[0]
    assert row["classes"] == ("A",)
    assert row["boxes_px"].tolist() == [[90, 90, 100, 100]]


def test_a_tile_without_nuclei_has_a_row(make_field):
    table = cut_fields([make_field("a"), make_field("b", slide="s", hospital="h")], fov_mpp=0.25, fov_px=50)
    assert table["field"].tolist() == ["a"] * 4 + ["b"] * 4
    assert table["id"].tolist() == list(range(8))
    assert all(len(boxes) == 0 for boxes in table["boxes_px"])
    assert table["slide"].tolist() == [""] * 4 + ["s"] * 4
    assert set(table["patient"]) == {""}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_nucleus_is_counted_once_and_each_part_is_where_it_was(data):
    width, height = data.draw(st.integers(30, 400)), data.draw(st.integers(30, 400))
    seed, count = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 30))
    mpp, fov_mpp = data.draw(st.sampled_from([0.2, 0.25, 0.5])), data.draw(st.sampled_from([0.2, 0.25]))
    fov_px = data.draw(st.sampled_from([None, 16, 50, 64, 256]))
    generator = np.random.default_rng(seed)
    start = generator.uniform(0, [width - 12, height - 12], (count, 2))
    # At least 11 px: of a nucleus whose centre is in a tile, 5 px lie there at the least.
    boxes = np.hstack([start, start + generator.uniform(11, 40, (count, 2))]).astype(np.float32)
    field = NucleusField(
        name="f",
        image=None,
        width_px=width,
        height_px=height,
        mpp=mpp,
        boxes_px=boxes,
        classes=tuple(str(number) for number in range(count)),
        ignored=np.zeros(count, bool),
    )
    table = cut_fields([field], fov_mpp=fov_mpp, fov_px=fov_px, min_box_px=1)
    names = [name for row in table["classes"] for name in row if name != "ignored"]
    assert sorted(names) == sorted(field.classes)
    assert (table["width_px"] * table["height_px"]).sum() == width * height
    area = 0.0
    for (_, row), size in zip(table.iterrows(), fov_size_px(table), strict=True):
        parts = row["boxes_px"]
        assert (parts >= 0).all()
        assert (parts <= [*size, *size]).all()
        scale = np.array([row["width_px"], row["height_px"]] * 2) / [*size, *size]
        back = parts * scale + [row["left_px"], row["top_px"]] * 2
        area += np.prod(back[:, 2:] - back[:, :2], axis=1).sum()
        for name, box in zip(row["classes"], back, strict=True):
            if name != "ignored":
                whole = np.clip(boxes[int(name)], 0, [width, height] * 2)
                low = np.array([row["left_px"], row["top_px"]])
                high = low + row[["width_px", "height_px"]].to_numpy(float)
                centre = (whole[:2] + whole[2:]) / 2
                assert (low <= centre + 1e-4).all()
                assert (centre - 1e-4 <= high).all()
                np.testing.assert_allclose(box, np.clip(whole, [*low, *low], [*high, *high]), atol=1e-3)
    # Nothing of a nucleus is lost but parts under a pixel wide or high.
    inside = np.clip(boxes, 0, [width, height] * 2)
    total = np.prod(inside[:, 2:] - inside[:, :2], axis=1).sum()
    assert area <= total + 1
    assert area >= 0.75 * total - 1


def test_common_resolution(make_field):
    assert common_mpp([make_field(mpp=0.25), make_field(mpp=0.251), make_field(mpp=0.2502)]) == pytest.approx(0.2502)
    with pytest.raises(ConfigError, match=r"have 0.25 to 0.5 micrometres per pixel; say .* with fov_mpp"):
        common_mpp([make_field(mpp=0.25), make_field(mpp=0.5)])
    with pytest.raises(CohortError, match="there is no annotated field"):
        common_mpp([])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fov_mpp": 0.0}, "fov_mpp must be micrometres per pixel above 0, such as 0.25, but is 0.0"),
        ({"fov_px": 8}, "fov_px must be at least 16 pixels, or None for whole fields, but is 8"),
        ({"min_box_px": 0}, "min_box_px must be at least 1 pixel, but is 0"),
    ],
)
def test_settings_out_of_range(make_field, setting, message):
    with pytest.raises(ConfigError, match=message):
        cut_fields([make_field()], **{"fov_mpp": 0.25, **setting})


def test_a_field_without_pixels(make_field):
    with pytest.raises(CohortError, match="f: measures 0 x 100 pixels; nothing can be cut"):
        cut_fields([make_field(size=(0, 100))], fov_mpp=0.25)


def test_consep_in_tiles_of_250_px(tral_data):
    boxes = pd.read_csv(tral_data / "consep" / "boxes.csv")
    fields = [
        NucleusField(
            name=name,
            image=None,
            width_px=1000,
            height_px=1000,
            mpp=0.25,
            boxes_px=of_field[["xmin", "ymin", "xmax", "ymax"]].to_numpy(),
            classes=tuple(of_field["class_name"]),
            ignored=np.zeros(len(of_field), bool),
        )
        for name, of_field in boxes.groupby("image")
    ]
    table = cut_fields(fields, fov_mpp=0.25, fov_px=250, min_box_px=1)
    assert len(table) == 27 * 16
    # The data set's own count: each nucleus once.
    assert sum(name != "ignored" for names in table["classes"] for name in names) == 15_555
