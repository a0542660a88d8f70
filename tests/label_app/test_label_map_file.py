# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tral_monai.errors import AnnotationError
from tral_monai.label_app.label_map_file import Segment, read_label_map

ROWS = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]  # no axis can be mirrored or swapped without being seen
SIZE = (4, 3)
sitk = pytest.importorskip("SimpleITK")  # MONAI Label brings it


def write(path: Path, array: np.ndarray, direction: tuple[float, ...] | None = None, **keys: str) -> Path:
    image = sitk.GetImageFromArray(array)
    if direction is not None:
        image.SetDirection(direction)
    for key, value in keys.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), True)
    return path


def diagonal(*signs: float) -> tuple[float, ...]:
    return tuple(np.diag(signs).ravel().astype(float))


def seg_nrrd(path: Path, layers: np.ndarray, *lines: str) -> Path:
    """As Slicer writes a segmentation: a list of layers, all that the header needs, pixels as they are."""
    count, height, width = layers.shape
    header = [
        "NRRD0005",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {count} {width} {height} 1",
        "space directions: none (1,0,0) (0,1,0) (0,0,1)",
        "kinds: list domain domain domain",
        "encoding: gzip",
        "space origin: (0,0,0)",
        *lines,
    ]
    pixels = gzip.compress(np.moveaxis(layers, 0, 2).astype(np.uint8).tobytes())
    path.write_bytes("\n".join(header).encode() + b"\n\n" + pixels)
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".nii", ".NRRD"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_volume_of_one_slice_is_the_images_grid(tmp_path: Path, suffix: str, dtype: type) -> None:
    file = write(tmp_path / "x.nrrd" if suffix == ".NRRD" else tmp_path / f"x{suffix}", np.array([ROWS], dtype))
    if suffix == ".NRRD":
        file = file.rename(tmp_path / "y.NRRD")
    read = read_label_map(file, SIZE)
    assert read.layers.dtype == np.uint16
    assert read.layers.tolist() == [ROWS]
    assert read.segments is None


@pytest.mark.parametrize("signs", [(-1, -1, 1), (-1, 1, -1), (1, -1, -1)])
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_signs_of_the_axes_do_not_mirror_it(tmp_path: Path, suffix: str, signs: tuple[int, ...]) -> None:
    """A PNG's volume has the directions (-1, -1, 1) in Slicer's space, and its voxels are in the image's order."""
    file = write(tmp_path / f"x{suffix}", np.array([ROWS], np.uint8), diagonal(*signs))
    assert read_label_map(file, SIZE).layers.tolist() == [ROWS]


def test_the_header_of_a_right_anterior_superior_file_does_not_mirror_it(tmp_path: Path) -> None:
    file = tmp_path / "ras.nrrd"
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 3 1\n"
        "space directions: (-1,0,0) (0,-1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        "space origin: (0,0,0)\n\n"
    )
    file.write_bytes(header.encode() + np.array(ROWS, "<i2").tobytes())
    assert read_label_map(file, SIZE).layers.tolist() == [ROWS]


def test_a_map_of_two_dimensions(tmp_path: Path) -> None:
    file = write(tmp_path / "x.nrrd", np.array(ROWS, np.uint8))
    assert read_label_map(file, SIZE).layers.tolist() == [ROWS]


def test_a_segmentation_of_slicer_names_its_segments_and_may_overlap(tmp_path: Path) -> None:
    layers = np.zeros((2, 3, 4), np.uint8)
    layers[0, 1, 0], layers[1, 1, 0], layers[1, 2, 3] = 1, 5, 5
    lines = ["Segment0_LabelValue:=1", "Segment0_Layer:=0", "Segment0_Name:=Tumör"]
    lines += ["Segment1_LabelValue:=5", "Segment1_Layer:=1", "Segment1_Name:=Stroma", "Segment1_ID:=Segment_2"]
    read = read_label_map(seg_nrrd(tmp_path / "x.seg.nrrd", layers, *lines), SIZE)
    assert read.layers.tolist() == layers.tolist()
    assert read.segments == (Segment("Tumör", 1, 0), Segment("Stroma", 5, 1))


def test_a_segmentation_that_was_cut_down_goes_back_to_its_place(tmp_path: Path) -> None:
    lines = ["Segment0_LabelValue:=1", "Segmentation_ReferenceImageExtentOffset:=2 1 0"]
    read = read_label_map(seg_nrrd(tmp_path / "x.seg.nrrd", np.array([[[1, 0], [1, 1]]]), *lines), SIZE)
    assert read.layers.tolist() == [[[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]
    assert read.segments == (Segment("value 1", 1, 0),)
    lines[1] = "Segmentation_ReferenceImageExtentOffset:=3 1 0"
    with pytest.raises(AnnotationError, match=r"has 2 x 2 pixels from \(3, 1\) on, but its image has 4 x 3"):
        read_label_map(seg_nrrd(tmp_path / "y.seg.nrrd", np.array([[[1, 0], [1, 1]]]), *lines), SIZE)


def test_a_segment_of_a_layer_that_is_not_there(tmp_path: Path) -> None:
    for line in ("Segment0_Layer:=1", "Segment0_Layer:=-1"):
        file = seg_nrrd(tmp_path / "x.seg.nrrd", np.ones((1, 3, 4)), "Segment0_LabelValue:=1", line)
        with pytest.raises(AnnotationError, match="segment 0 of the label map has the label value '1' in the layer"):
            read_label_map(file, SIZE)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 3), "the label map has 3 x 4 pixels, but its image has 4 x 3; export it on the grid"),
        ((3, 3), "the label map has 3 x 3 pixels, but its image has 4 x 3"),
        ((2, 3, 4), "expected a label map of one slice, but it has 4 x 3 x 2 voxels"),
    ],
)
def test_another_size(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    file = write(tmp_path / "x.nrrd", np.ones(shape, np.uint8))
    with pytest.raises(AnnotationError, match=message):
        read_label_map(file, SIZE)


def test_turned_axes(tmp_path: Path) -> None:
    file = write(tmp_path / "x.nrrd", np.ones((1, 3, 3), np.uint8), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    with pytest.raises(AnnotationError, match="the label map's axes are turned against those of its image"):
        read_label_map(file, (3, 3))


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (np.float32, 0.5, r"expected whole numbers from 0 to 65535 as labels, but the label map holds 0.5 to 0.5"),
        (np.float32, np.nan, "holds nan to nan"),
        (np.int16, -1, r"holds -1 to -1 \(int16\)"),
        (np.uint32, 70_000, "holds 70000 to 70000"),
    ],
)
def test_pixels_that_are_no_labels(tmp_path: Path, dtype: type, value: float, message: str) -> None:
    file = write(tmp_path / "x.nrrd", np.full((1, 3, 4), value, dtype))
    with pytest.raises(AnnotationError, match=message):
        read_label_map(file, SIZE)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content in (("a.nrrd", b"NRRD junk"), ("b.nii.gz", b"\x1f\x8b junk"), ("c.nrrd", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AnnotationError, match="the label map cannot be read .*; save and submit it again"):
            read_label_map(tmp_path / name, SIZE)
    whole = write(tmp_path / "whole.nrrd", np.random.default_rng(0).integers(0, 9, (1, 300, 400)).astype(np.uint8))
    (tmp_path / "half.nrrd").write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(AnnotationError, match="the label map cannot be read"):
        read_label_map(tmp_path / "half.nrrd", (400, 300))


@pytest.mark.parametrize("field", ["data file", "datafile", "DATA FILE"])
def test_no_other_file_of_the_server_is_read(tmp_path: Path, field: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(12)))
    header = "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 3\nencoding: raw\n"
    (tmp_path / "x.nrrd").write_text(f"{header}{field}: {tmp_path / 'secret'}\n\n")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "x.nrrd"))).tolist() == ROWS, "SimpleITK reads it"
    with pytest.raises(AnnotationError, match="the label map's pixels lie in another file"):
        read_label_map(tmp_path / "x.nrrd", SIZE)
    (tmp_path / "y.nrrd").write_text(f"ObjectType = Image\nNDims = 2\nDimSize = 4 3\nElementDataFile = {tmp_path}/x\n")
    with pytest.raises(AnnotationError, match="the label map cannot be read"):  # whatever else SimpleITK can read
        read_label_map(tmp_path / "y.nrrd", SIZE)


def test_too_many_layers(tmp_path: Path) -> None:
    file = tmp_path / "x.nrrd"
    file.write_text(
        "NRRD0005\ntype: uchar\ndimension: 3\nsizes: 30000000 4 3\nkinds: list domain domain\nencoding: gzip\n\n"
    )
    with pytest.raises(AnnotationError, match=r"has 30000000 layers, too many for an image of 4 x 3 pixels"):
        read_label_map(file, SIZE)
