# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pandas as pd
import pytest

from tral_monai.data import triplet_source
from tral_monai.data.triplet_source import TripletSource, sample_table, slide_groups
from tral_monai.errors import CohortError, SlideOpenError
from tral_monai.slides import open_slide

ROW = {"slide_path": "a.tif", "slide_mpp": 0.25, "x_level0": 64, "y_level0": 64}


@pytest.fixture
def table(tiny_cohort) -> pd.DataFrame:
    """Three tiles on two slides of the generated cohort, the slides taking turns."""
    slides = sorted(tiny_cohort.parent.rglob("*.tif"))[:2]
    centres = [(512, 512), (640, 768), (768, 512)]
    return pd.DataFrame(
        [
            {"slide_path": str(slides[i % 2]), "slide_mpp": open_slide(slides[i % 2]).mpp, "x_level0": x, "y_level0": y}
            for i, (x, y) in enumerate(centres)
        ]
    )


def test_triplets_come_in_the_order_of_the_table(table):
    images = TripletSource().read(table)
    assert images.shape == (3, 9, 128, 128)
    for row, image in zip(table.itertuples(), images, strict=True):
        slide = open_slide(row.slide_path)
        side = 64 * 0.25 / slide.mpp  # half a 40x tile in level-0 pixels
        corner = (round(row.x_level0 - side), round(row.y_level0 - side))
        if slide.mpp == 0.25:  # no resampling: exact
            assert np.array_equal(image[:3].transpose(1, 2, 0), slide.read(corner, (128, 128), magnification=40))
    assert not np.array_equal(images[0], images[2])


def test_the_order_of_the_table_does_not_change_a_triplet(table):
    forward, backward = TripletSource().read(table), TripletSource().read(table[::-1])
    assert np.array_equal(forward, backward[::-1])


def test_blocks_cover_every_position_once(table):
    blocks = list(TripletSource().iter_blocks(table, max_triplets=1))
    assert sorted(int(p) for positions, _ in blocks for p in positions) == [0, 1, 2]
    assert all(len(images) == 1 for _, images in blocks)


def test_only_the_slides_used_last_stay_open(table, monkeypatch):
    monkeypatch.setattr(triplet_source, "OPEN_SLIDES", 1)
    source = TripletSource()
    images = source.read(table)
    assert len(source._readers) == 1
    assert np.array_equal(source.read(table), images)


def test_it_can_be_sent_to_a_worker_process(table):
    source = TripletSource()
    images = source.read(table)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(table), images)


def test_a_slide_that_is_gone_is_named(table):
    with pytest.raises(SlideOpenError, match=r"gone\.tif"):
        TripletSource().read(table.assign(slide_path="gone.tif"))


def test_groups_keep_the_order_of_first_rows():
    table = pd.DataFrame({"slide_path": ["b", "a", "b"], "slide_mpp": [0.25, 0.5, 0.25]})
    groups = [(path, mpp, positions.tolist()) for path, mpp, positions in slide_groups(table)]
    assert groups == [("b", 0.25, [0, 2]), ("a", 0.5, [1])]


@pytest.mark.parametrize("form", ["list", "table", "parquet"])
def test_samples_from_lists_tables_and_files(form, tmp_path):
    data = [ROW, {**ROW, "x_level0": 192}]
    if form != "list":
        data = pd.DataFrame(data)
    if form == "parquet":
        data.to_parquet(tmp_path / "samples.parquet")
        data = str(tmp_path / "samples.parquet")
    table = sample_table(data)
    assert table["id"].tolist() == [0, 1]
    assert table["x_level0"].tolist() == [64, 192]


def test_given_ids_are_kept():
    assert sample_table([{**ROW, "id": 41}])["id"].tolist() == [41]


def test_missing_columns_and_files(tmp_path):
    with pytest.raises(CohortError, match=r"samples lack \['y_level0'\]"):
        sample_table([{k: v for k, v in ROW.items() if k != "y_level0"}])
    with pytest.raises(CohortError, match=r"there is no sample table .*nothing\.parquet"):
        sample_table(tmp_path / "nothing.parquet")
