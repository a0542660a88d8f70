# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from tral_monai.errors import ConfigError, OutputError
from tral_monai.label_app.image_answer import EXTENSIONS, extension_of, label_map, write_label_map
from tral_monai.label_app.wsi_result import Shapes

itk = pytest.importorskip("itk")  # MONAI Label brings it


def shapes(*entries: tuple[shapely.Polygon, int, float]) -> Shapes:
    polygons = np.empty(len(entries), dtype=object)
    polygons[:] = [entry[0] for entry in entries]
    return Shapes(
        polygons=polygons,
        labels=np.array([entry[1] for entry in entries], dtype=np.int64),
        scores=np.array([entry[2] for entry in entries]),
        names=("a", "b"),
        colours={"a": (0, 0, 0), "b": (1, 1, 1)},
    )


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_every_pixel_has_its_class() -> None:
    frame = shapely.box(0, 0, 4, 3) - shapely.box(1, 1, 2, 2)
    labels = label_map(shapes((frame, 1, 0.9), (shapely.box(4, 0, 6, 2), 2, 0.9)), (6, 4))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[1, 1, 1, 1, 2, 2], [1, 0, 1, 1, 2, 2], [1, 1, 1, 1, 0, 0], [0] * 6]


def test_the_better_of_two_lies_on_top_and_nothing_leaves_the_picture() -> None:
    low, high = (shapely.box(0, 0, 3, 1), 1, 0.5), (shapely.box(2, 0, 9, 1), 2, 0.75)
    assert label_map(shapes(high, low), (4, 2)).tolist() == [[1, 1, 2, 2], [0, 0, 0, 0]]
    assert label_map(shapes(), (2, 1)).tolist() == [[0, 0]]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_label_map_comes_back_as_it_was(own_folder: Path, tmp_path: Path, extension: str) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    source = tmp_path / "picture.png"
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(source)
    file = write_label_map(labels, extension, source)
    assert file.parent == own_folder
    assert file.name.endswith(extension)
    image = itk.imread(str(file))
    back = np.squeeze(itk.array_from_image(image))
    assert back.tolist() == labels.tolist()
    assert back.dtype == np.uint8
    assert list(image.GetSpacing())[:2] == [1.0, 1.0]


def test_a_label_map_lies_on_its_picture(own_folder: Path, tmp_path: Path) -> None:
    """Slicer reads the resolution of a TIFF: a label map without it would be 4000 times as large as the picture."""
    source = tmp_path / "picture.tif"
    pixels = np.full((3, 4, 3), 200, np.uint8)
    tifffile.imwrite(source, pixels, resolution=(40_000, 20_000), resolutionunit="CENTIMETER", photometric="rgb")
    picture = itk.imread(str(source))
    labels = itk.imread(str(write_label_map(np.ones((3, 4), np.uint8), ".nrrd", source)))
    assert list(picture.GetSpacing()) == pytest.approx([10 / 40_000, 10 / 20_000])
    assert list(labels.GetSpacing()) == pytest.approx(list(picture.GetSpacing()))
    assert list(labels.GetOrigin()) == list(picture.GetOrigin())


def test_only_known_extensions() -> None:
    assert extension_of(None) == extension_of("") == ".nrrd"
    assert extension_of(".nii.gz") == ".nii.gz"
    for wrong in ("/../../x.nrrd", ".exe", "nrrd", 7):
        with pytest.raises(ConfigError, match=r"result_extension must be one of \.nrrd, \.nii\.gz, \.nii, \.png, but"):
            extension_of(wrong)


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="cannot write the label map"):
        write_label_map(np.ones((1, 1), np.uint8), ".png", tmp_path / "x.png")
