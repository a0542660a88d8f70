# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tral_monai.annotations.nuclei.crchistophenotypes import read_crchistophenotypes
from tral_monai.errors import AnnotationError, ConfigError

EMPTY = np.empty((0, 2))
POINTS = {
    "epithelial": [[30.0, 40.0], [5.0, 40.0]],
    "fibroblast": EMPTY,
    "inflammatory": [[60.0, 60.0]],
    "others": [[80.0, 10.0]],
}


def write(images, points, stem="img1", suffix=".jpg", **lists):
    images.mkdir(parents=True, exist_ok=True)
    points.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 90)).save(images / f"{stem}{suffix}")
    for part, centres in {**POINTS, **lists}.items():
        savemat(points / f"{stem}_{part}.mat", {"detection": np.asarray(centres)})


def test_centres_become_squares(tmp_path):
    write(tmp_path / "images", tmp_path / "points")
    # 20 px at 0.5 um are 10 um; the second square is cut at the left edge.
    (field,) = read_crchistophenotypes(tmp_path, box_um=10, mpp=0.5)
    assert field.boxes_px.tolist() == [[20, 30, 40, 50], [0, 30, 15, 50], [50, 50, 70, 70], [70, 0, 90, 20]]
    assert field.classes == ("epithelial", "epithelial", "inflammatory", "other")
    assert (field.width_px, field.height_px, field.mpp, field.problems) == (100, 90, 0.5, ())
    assert not field.ignored.any()


def test_the_default_square_is_8_um_at_055_mpp(tmp_path):
    write(tmp_path / "images", tmp_path / "points")
    (field,) = read_crchistophenotypes(tmp_path)
    np.testing.assert_allclose(field.boxes_px[0, 2:] - field.boxes_px[0, :2], 8 / 0.55, rtol=1e-6)
    assert field.mpp == 0.55


def test_detected_nuclei_without_a_class_are_ignored(tmp_path):
    # The first three are classed nuclei, the second moved by 3 px; (33, 40) is a neighbour of a classed one.
    detection = [[30, 40], [5, 43], [60, 60], [33, 40], [50, 20]]
    write(tmp_path / "images", tmp_path / "points", detection=np.array(detection, float))
    (field,) = read_crchistophenotypes(tmp_path, box_um=10, mpp=0.5)
    assert field.classes[4:] == ("ignored", "ignored")
    assert field.ignored.tolist() == [False] * 4 + [True] * 2
    centres = (field.boxes_px[4:, :2] + field.boxes_px[4:, 2:]) / 2
    assert centres.tolist() == [[33, 40], [50, 20]]


def test_the_releases_layouts(tmp_path):
    flat, parts = tmp_path / "flat", tmp_path / "parts"
    write(flat / "img1", flat / "img1", suffix=".bmp")
    write(parts / "Classification/img1", parts / "Classification/img1", suffix=".bmp")
    detection = parts / "Detection/img1"
    detection.mkdir(parents=True)
    Image.new("RGB", (100, 90)).save(detection / "img1.bmp")
    savemat(detection / "img1_detection.mat", {"detection": np.array([[50.0, 20.0]])})
    (field,) = read_crchistophenotypes(flat)
    assert (field.name, field.image, len(field)) == ("img1", flat / "img1/img1.bmp", 4)
    (field,) = read_crchistophenotypes(parts)
    assert field.classes[-1] == "ignored"
    assert len(field) == 5


def test_centres_beyond_the_picture_are_counted(tmp_path):
    write(tmp_path / "images", tmp_path / "points", fibroblast=[[102.0, 50.0], [300.0, 50.0]])
    (field,) = read_crchistophenotypes(tmp_path)
    assert field.problems == (
        "img1: centres outside the picture of 100 x 90 px: 2",
        "img1: 1 box outside the annotated area left out",
    )
    assert field.classes.count("fibroblast") == 1


def test_a_field_without_nuclei_is_kept(tmp_path):
    write(tmp_path / "images", tmp_path / "points", epithelial=EMPTY, inflammatory=EMPTY, others=EMPTY)
    (field,) = read_crchistophenotypes(tmp_path)
    assert len(field) == 0


def test_what_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(AnnotationError, match="expected the folders images and points, or img1/img1.bmp"):
        read_crchistophenotypes(tmp_path)
    write(tmp_path / "images", tmp_path / "points", others=[[1.0, 2.0, 3.0]])
    with pytest.raises(
        AnnotationError, match=r"img1_others\.mat: expected one row \(x, y\) per nucleus, but .*\(1, 3\)"
    ):
        read_crchistophenotypes(tmp_path)
    (tmp_path / "points/img1_others.mat").unlink()
    with pytest.raises(
        AnnotationError, match=r"img1: expected the list img1_others\.mat in points, but it is not there"
    ):
        read_crchistophenotypes(tmp_path)
    problems: list[str] = []
    assert read_crchistophenotypes(tmp_path, problems=problems) == []
    assert problems[0].startswith("img1: expected the list")
    with pytest.raises(ConfigError, match="box_um must be a positive length in micrometres, but is 0"):
        read_crchistophenotypes(tmp_path, box_um=0)


def test_the_real_fields_hold_what_their_description_counts(tral_data):
    fields = read_crchistophenotypes(tral_data / "crchistophenotypes")
    assert len(fields) == 70
    counts = Counter(name for field in fields for name in field.classes)
    ignored = counts.pop("ignored")
    assert counts == {"epithelial": 5395, "inflammatory": 4708, "fibroblast": 3889, "other": 1541}
    # 20,401 are marked; but for two classed nuclei without a mark near by, each classed one takes one away.
    assert 0 <= ignored - (20_401 - counts.total()) <= 5
