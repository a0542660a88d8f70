# SPDX-License-Identifier: Apache-2.0
import logging
import os

import pandas as pd
import pytest

from tests.inference.colour_slides import slide_pixels, write_slide
from tests.rounds.regions.colour_site import make_slides, nuclei_site, tissue_site
from tests.rounds.regions.test_slide_grid import write_areas
from tral_monai.errors import PoolError
from tral_monai.rounds.regions.candidates import candidate_regions, cut_regions, divided, find_cut, slide_problems
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.slide_grid import COLUMNS


@pytest.fixture
def studies(tmp_path):
    """One slide of 1024 x 768 um with 12 x 8 cells of tissue from (2, 2) on; a cell is 128 px and 64 um."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write_slide(folder / "s.tif", slide_pixels(), mpp=0.5)
    return folder


def cells(table, purpose):
    rows = table[table["purpose"] == purpose]
    return {(x // 128, y // 128) for x, y in rows[["x_level0", "y_level0"]].to_numpy().tolist()}


def test_the_only_slide_is_divided_with_room_on_either_side_of_the_cut(studies):
    task = tissue_site(studies, val_fraction=0.25)
    table = candidate_regions(task)
    # A quarter of the twelve columns lies beyond column 11; columns 10 and 11 stay free.
    assert task.catalog.cut_of("s.tif") == ("x", 11 * 128)
    assert cells(table, "train") == {(x, y) for x in range(2, 10) for y in range(2, 10)}
    assert cells(table, "val") == {(x, y) for x in (12, 13) for y in range(2, 10)}
    first = table.iloc[0]
    assert first["id"] == Region("s.tif", 256, 256, 128, 128).id
    assert table["id"].is_unique
    for row in table.itertuples():
        region = Region(row.slide, row.x_level0, row.y_level0, row.width_level0, row.height_level0)
        assert task.catalog.purpose(region) == row.purpose


def test_without_a_held_out_part_all_is_trained_on(studies):
    table = candidate_regions(tissue_site(studies, val_fraction=0.0))
    assert set(table["purpose"]) == {"train"}
    assert len(table) == 96


def test_slides_have_the_purpose_of_their_side(tmp_path):
    # 256 x 192 um: fields of 4 x 3 regions, wholly of tissue.
    table = candidate_regions(tissue_site(make_slides(tmp_path / "studies")))
    assert table.groupby(["slide", "purpose"]).size().to_dict() == {
        ("a.tif", "train"): 12,
        ("b.tif", "train"): 12,
        ("c.tif", "val"): 12,
    }
    assert (table["tissue"] == 1).all()


def test_areas_win_over_the_side(studies):
    write_areas(
        studies / "areas.geojson",
        ("train", "Stroma", (256, 256, 512, 384)),
        ("val", "Stroma", (640, 256, 768, 384)),
    )
    (studies / "slides.csv").write_text("slide,areas\ns.tif,areas.geojson\n")
    table = candidate_regions(tissue_site(studies))
    assert (cells(table, "train"), cells(table, "val")) == ({(2, 2), (3, 2)}, {(5, 2)})


def test_a_slide_that_cannot_be_used_is_left_out_and_listed(tmp_path, caplog):
    studies = make_slides(tmp_path / "studies", ("a", "b"))
    (studies / "broken.tif").write_bytes(b"II*\0 and no more")
    write_slide(studies / "nowhere.tif", slide_pixels(("SS", "SS")), mpp=None)
    task = tissue_site(studies)
    assert slide_problems(task) == {}  # nobody has looked yet
    with caplog.at_level(logging.WARNING):
        table = candidate_regions(task)
        candidate_regions(tissue_site(studies))
    assert set(table["slide"]) == {"a.tif", "b.tif"}
    problems = slide_problems(task)
    assert set(problems) == {"broken.tif", "nowhere.tif"}
    assert "records no micrometres per pixel" in problems["nowhere.tif"]
    assert sum("nowhere.tif is left out" in message for message in caplog.messages) == 1


def test_a_slide_is_looked_at_once_until_its_file_changes(studies):
    table = candidate_regions(tissue_site(studies))
    path = studies / "s.tif"
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    task = tissue_site(studies)
    pd.testing.assert_frame_equal(candidate_regions(task), table)
    os.utime(path)
    with pytest.raises(PoolError, match=r"there is no region to ask for: 1 of 1 slides cannot be used \(s.tif: "):
        candidate_regions(task)


def test_a_damaged_table_is_made_anew(studies):
    task = tissue_site(studies)
    table = candidate_regions(task)
    (file,) = (task.folder / "candidates").glob("*.parquet")
    file.write_bytes(b"half a tab")
    pd.testing.assert_frame_equal(candidate_regions(task), table)


def test_an_empty_folder(tmp_path):
    (tmp_path / "studies").mkdir()
    with pytest.raises(PoolError, match="there is no slide in the studies folder 'studies'; put slides there"):
        candidate_regions(tissue_site(tmp_path / "studies"))


def test_glass_alone(tmp_path):
    (tmp_path / "studies").mkdir()
    write_slide(tmp_path / "studies" / "glass.tif", slide_pixels(("." * 16,) * 2), mpp=0.5)
    write_slide(tmp_path / "studies" / "s.tif", slide_pixels(("." * 16,) * 2), mpp=0.5)
    with pytest.raises(PoolError, match="no tissue was found on 2 slides in 'studies'"):
        candidate_regions(tissue_site(tmp_path / "studies"))


def test_progress_counts_slides(tmp_path):
    told = []
    candidate_regions(tissue_site(make_slides(tmp_path / "s")), progress=lambda *at: told.append(at))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def regions(*boxes, mpp=0.25):
    rows = [(*box, 1.0, 511, mpp, "") for box in boxes]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def test_a_cut_runs_across_the_longer_side():
    column = regions(*[(0, 100 * i, 100, 100) for i in range(8)])
    assert find_cut(column, 0.25) == ("y", 600)
    assert find_cut(column, 0.5) == ("y", 400)
    assert find_cut(column, 0.0) is None
    assert find_cut(regions((0, 0, 100, 100)), 0.5) is None


def test_a_cut_across_the_shorter_side_where_the_longer_has_one_region():
    assert find_cut(regions((0, 0, 300, 100), (0, 100, 300, 100)), 0.5) == ("y", 100)


def test_no_room_is_left_where_it_would_cost_a_side():
    row = regions(*[(100 * i, 0, 100, 100) for i in range(4)])
    assert divided(row, "x", 300).tolist() == ["train"] * 3 + ["val"]
    # Across the cut is neither side.
    assert divided(row, "x", 250).tolist() == ["train", "train", "", "val"]


def test_a_regions_width_is_left_free_on_either_side():
    row = regions(*[(100 * i, 0, 100, 100) for i in range(10)])
    assert divided(row, "x", 600).tolist() == ["train"] * 5 + ["", ""] + ["val"] * 3


def test_the_cut_of_another_task_divides_a_region():
    cut = cut_regions(regions((0, 0, 1000, 100)), "x", 700)
    assert cut[["x_level0", "width_level0"]].to_numpy().tolist() == [[0, 700], [700, 300]]
    # A part below a quarter of the region is not worth a person's time.
    cut = cut_regions(regions((0, 0, 1000, 100)), "x", 800)
    assert cut[["x_level0", "width_level0"]].to_numpy().tolist() == [[0, 800]]


def test_both_tasks_of_a_site_with_one_field_have_both_sides(tmp_path):
    studies = make_slides(tmp_path / "studies", ("a",), held_out="")
    (studies / "slides.csv").unlink()
    nuclei = candidate_regions(nuclei_site(studies, nuclei_region_um=32.0))
    tissue = candidate_regions(tissue_site(studies, tissue_region_um=256.0))
    # 8 columns of 6 regions, of 128 px; a quarter lies beyond column 6; columns 5 and 6 stay free.
    assert nuclei.groupby("purpose").size().to_dict() == {"train": 30, "val": 6}
    assert tissue[["x_level0", "width_level0", "purpose"]].to_numpy().tolist() == [[0, 768, "train"], [768, 256, "val"]]
