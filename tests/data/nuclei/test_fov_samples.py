# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.data.nuclei.cut import cut_fields
from tral_monai.data.nuclei.fov_samples import fov_samples
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS
from tral_monai.errors import CohortError, SlideReadError


@pytest.fixture
def sample(gradient):
    return {"image": str(gradient()), "boxes": [[10, 20, 30, 40], [90, 0, 120, 9]], "classes": ["A", "B"], "mpp": 0.25}


def test_a_dict_stands_for_the_whole_image(sample):
    table = fov_samples([sample, {**sample, "id": 7, "patient": "p"}])
    assert list(table.columns) == list(FOV_COLUMNS)
    assert table["id"].tolist() == [0, 7]
    assert table["patient"].tolist() == ["", "p"]
    assert table[["left_px", "top_px", "width_px", "height_px"]].values.tolist() == [[0, 0, 100, 80]] * 2
    assert table["boxes_px"][0].tolist() == [[10, 20, 30, 40], [90, 0, 100, 9]]  # clipped to the image
    assert table["classes"][0] == ("A", "B")


def test_boxes_follow_the_resolution(sample):
    table = fov_samples([sample], fov_mpp=0.5)
    assert table["boxes_px"][0].tolist() == [[5, 10, 15, 20], [45, 0, 50, 4.5]]
    assert table["fov_mpp"][0] == 0.5


def test_a_table_gets_a_fresh_index(make_field):
    table = cut_fields([make_field()], fov_mpp=0.25, fov_px=50).iloc[[2, 1]]
    found = fov_samples(table)
    assert found.index.tolist() == [0, 1]
    assert found["id"].tolist() == [2, 1]


def test_what_is_missing_or_wrong_is_named(sample, make_field, tmp_path):
    with pytest.raises(CohortError, match=r"a.png: lacks \['classes', 'mpp'\]; a sample has \['image', 'boxes'"):
        fov_samples([{"image": sample["image"], "boxes": []}])
    with pytest.raises(CohortError, match=r"sample 0: lacks \['image'"):
        fov_samples([{}])
    with pytest.raises(CohortError, match="a.png: mpp must be micrometres per pixel above 0, but is 0"):
        fov_samples([{**sample, "mpp": 0}])
    with pytest.raises(CohortError, match=r"a.png: boxes must be lists of xmin, .* but have the shape \(2, 3\)"):
        fov_samples([{**sample, "boxes": [[1, 2, 3], [1, 2, 3]]}])
    with pytest.raises(SlideReadError, match=r"b.png: no such image"):
        fov_samples([{**sample, "image": tmp_path / "b.png"}])
    with pytest.raises(CohortError, match=r"must occur once, but \[3\] occur more often"):
        fov_samples([{**sample, "id": 3}, {**sample, "id": 3}])
    with pytest.raises(CohortError, match=r"the table lacks the columns \['classes'\]"):
        fov_samples(cut_fields([make_field()], fov_mpp=0.25).drop(columns="classes"))
