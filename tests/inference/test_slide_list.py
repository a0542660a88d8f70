# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tral_monai.errors import ConfigError
from tral_monai.inference.slide_list import SlideListDataset, output_stem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("b.tif", "a.svs", "notes.txt", "x[1].tif", "deep/c.tif"):
        (tmp_path / name).touch()
    return tmp_path


def names(dataset: SlideListDataset) -> list[str]:
    return [Path(entry["image"]).name for entry in dataset]


def test_a_pattern_a_file_a_folder_and_a_list(folder: Path) -> None:
    assert names(SlideListDataset(f"{folder}/*.tif")) == ["b.tif", "x[1].tif"]
    assert names(SlideListDataset(folder / "a.svs")) == ["a.svs"]
    assert names(SlideListDataset(str(folder))) == ["a.svs", "b.tif", "x[1].tif"]
    assert names(SlideListDataset(f"{folder}/*")) == ["a.svs", "b.tif", "x[1].tif"]
    assert names(SlideListDataset(f"{folder}/**/*.tif")) == ["b.tif", "c.tif", "x[1].tif"]
    assert names(SlideListDataset([f"{folder}/*.svs", {"image": folder / "b.tif"}])) == ["a.svs", "b.tif"]


def test_a_slide_matched_twice_comes_once_and_other_keys_stay(folder: Path) -> None:
    dataset = SlideListDataset([{"image": f"{folder}/b.tif", "patient": "p1"}, f"{folder}/*.tif"])
    assert names(dataset) == ["b.tif", "x[1].tif"]
    assert dataset[0]["patient"] == "p1"


def test_a_name_with_brackets_is_a_file_first(folder: Path) -> None:
    assert names(SlideListDataset(f"{folder}/x[1].tif")) == ["x[1].tif"]


def test_a_data_loader_can_read_it(folder: Path) -> None:
    batches = list(DataLoader(SlideListDataset(f"{folder}/*.tif"), batch_size=1))
    assert batches[0]["image"] == [f"{folder}/b.tif"]


def test_the_mrxs_folder_beside_its_file_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").touch()
    assert names(SlideListDataset(str(tmp_path))) == ["s.mrxs"]


def test_dots_in_a_name_are_kept() -> None:
    assert output_stem("/data/TCGA-1.2.3.svs") == "TCGA-1.2.3"


def test_what_cannot_be_found_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no slide matches '.*\*\.ndpi'.*quote it in the shell"):
        SlideListDataset(f"{folder}/*.ndpi")
    with pytest.raises(ConfigError, match=r"there is no slide '.*z\.tif'; check the path$"):
        SlideListDataset(f"{folder}/z.tif")
    with pytest.raises(ConfigError, match="use a pattern with '\\?' instead"):
        SlideListDataset(f"{folder}/slide::1.tif")
    with pytest.raises(ConfigError, match="no slides were given"):
        SlideListDataset([])
    with pytest.raises(ConfigError, match="must have the key 'image', but has \\['label'\\]"):
        SlideListDataset([{"label": "x"}])
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no slide"):
        SlideListDataset(str(folder / "empty"))


def test_two_slides_of_one_name_are_told_before_the_run(folder: Path) -> None:
    (folder / "deep" / "B.svs").touch()
    with pytest.raises(ConfigError, match="would both write"):
        SlideListDataset(f"{folder}/**/[bB].*")


def test_fields_are_plain_images_and_never_what_an_earlier_run_wrote(folder: Path) -> None:
    for name in ("f.png", "g.JPG", "b.json", "b_overlay.png", "c_overlay.png"):
        (folder / name).touch()
    with_fields = ["a.svs", "b.tif", "c_overlay.png", "f.png", "g.JPG", "x[1].tif"]
    assert names(SlideListDataset(str(folder), fields=True)) == with_fields
    assert names(SlideListDataset(f"{folder}/*", fields=True)) == with_fields
    assert names(SlideListDataset(f"{folder}/*.png", fields=True)) == ["c_overlay.png", "f.png"]
    assert names(SlideListDataset(str(folder))) == ["a.svs", "b.tif", "x[1].tif"]
