# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tral_monai.annotations.nuclei.consep import CLASSES, MERGED, instance_boxes, read_consep
from tral_monai.errors import AnnotationError, ConfigError


def instances():
    """Three nuclei: a square, one of two parts, and one that is a pixel; ids have a gap."""
    inst_map = np.zeros((20, 30))
    inst_map[2:6, 3:10] = 2
    inst_map[10, 20] = inst_map[14, 25] = 5
    inst_map[19, 29] = 9
    return inst_map


BOXES = [[3, 2, 10, 6], [20, 10, 26, 15], [29, 19, 30, 20]]


def write(images, labels, name="train_1", size=(30, 20), **variables):
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(images / f"{name}.png")
    savemat(labels / f"{name}.mat", {"inst_map": instances(), **variables})


def test_boxes_of_an_instance_map():
    ids, boxes = instance_boxes(instances().astype(np.int64))
    assert ids.tolist() == [2, 5, 9]
    assert boxes.tolist() == BOXES
    assert instance_boxes(np.zeros((4, 4), np.int64))[1].shape == (0, 4)
    assert instance_boxes(np.full((4, 3), 10**9))[1].tolist() == [[0, 0, 3, 4]]


@pytest.mark.parametrize(("images", "labels"), [("Train/Images", "Train/Labels"), ("images", "labels")])
def test_the_layouts(tmp_path, images, labels):
    write(tmp_path / images, tmp_path / labels, inst_type=np.array([[4.0], [5.0], [7.0]]))
    (field,) = read_consep(tmp_path)
    assert (field.name, field.image) == ("train_1", tmp_path / images / "train_1.png")
    assert (field.width_px, field.height_px, field.left_px, field.mpp) == (30, 20, 0, 0.25)
    assert field.boxes_px.tolist() == BOXES
    assert field.classes == ("malignant_epithelial", "fibroblast", "endothelial")
    assert not field.ignored.any()
    (field,) = read_consep(tmp_path, class_level="merged")
    assert field.classes == ("epithelial", "spindle", "spindle")


def test_both_official_lists_are_read(tmp_path):
    for part in ("Train", "Test"):
        write(tmp_path / part / "Images", tmp_path / part / "Labels", f"{part.lower()}_1", inst_type=np.ones((3, 1)))
    assert [field.name for field in read_consep(tmp_path)] == ["train_1", "test_1"]


def test_the_map_of_types_stands_in_for_the_list(tmp_path):
    types = np.where(instances() > 0, 2, 0)
    types[2, 3:10] = 3  # 7 of 28 pixels
    types[19, 29] = 6
    write(tmp_path / "images", tmp_path / "labels", type_map=types, inst_type=np.ones((9, 1)))
    (field,) = read_consep(tmp_path)
    assert field.classes == ("inflammatory", "inflammatory", "muscle")


def test_names_of_the_classes():
    assert list(CLASSES.values()) == [
        "other", "inflammatory", "healthy_epithelial", "malignant_epithelial", "fibroblast", "muscle", "endothelial"
    ]  # fmt: skip
    assert list(MERGED.values()) == [
        "other",
        "inflammatory",
        "epithelial",
        "epithelial",
        "spindle",
        "spindle",
        "spindle",
    ]


def test_a_class_id_of_no_name_is_ignored_and_named(tmp_path):
    write(tmp_path / "images", tmp_path / "labels", inst_type=np.array([[4], [8], [0]]))
    (field,) = read_consep(tmp_path)
    assert field.classes == ("malignant_epithelial", "ignored", "ignored")
    assert field.ignored.tolist() == [False, True, True]
    assert "train_1: class '0' (1 nuclei), '8' (1 nuclei) is not one of 1 (other), 2 (" in field.problems[0]


def test_a_field_without_nuclei_is_kept(tmp_path):
    write(tmp_path / "images", tmp_path / "labels", inst_map=np.zeros((20, 30)), inst_type=np.zeros((0, 1)))
    (field,) = read_consep(tmp_path)
    assert len(field) == 0


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"size": (31, 20)}, r"train_1\.mat: inst_map is 30 x 20 px, but train_1\.png is 31 x 20 px"),
        (
            {"inst_type": np.ones((2, 1))},
            "one class for each of the 3 nuclei of inst_map, but found 2 values in inst_ty",
        ),
        ({}, "but found no inst_type and no type_map; add one of them"),
        ({"type_map": np.ones((3, 3))}, r"type_map is \(3, 3\), but inst_map is \(20, 30\)"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, variables, message):
    write(tmp_path / "images", tmp_path / "labels", **variables)
    with pytest.raises(AnnotationError, match=message):
        read_consep(tmp_path)


def test_a_file_without_instances_is_named(tmp_path):
    write(tmp_path / "images", tmp_path / "labels")
    savemat(tmp_path / "labels/train_1.mat", {"map": np.zeros((2, 2))})
    with pytest.raises(AnnotationError, match=r"train_1\.mat: expected a variable 'inst_map', but found \['map'\]"):
        read_consep(tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(AnnotationError, match="expected CoNSeP's folders Train/Images and Train/Labels, or images"):
        read_consep(tmp_path)
    with pytest.raises(ConfigError, match="class_level of CoNSeP must be 'original' or 'merged', but is 'paper'"):
        read_consep(tmp_path, class_level="paper")
    for part in ("Train", "Test"):
        write(tmp_path / part / "Images", tmp_path / part / "Labels", inst_type=np.ones((3, 1)))
    with pytest.raises(AnnotationError, match=r"the field names \['train_1'\] occur more than once"):
        read_consep(tmp_path)


def test_the_real_fields_agree_with_their_table(tral_data):
    fields = {f"{field.name}.png": field for field in read_consep(tral_data / "consep")}
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in fields}
    with (tral_data / "consep/boxes.csv").open() as stream:
        for row in csv.DictReader(stream):
            box = tuple(float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            rows[row["image"]].append((*box, row["class_name"]))
    assert len(fields) == 27
    assert sum(map(len, fields.values())) == 15_555
    for name, field in fields.items():
        assert field.problems == ()
        found = [(*box, name) for box, name in zip(field.boxes_px.tolist(), field.classes, strict=True)]
        assert sorted(found) == sorted(rows[name])
