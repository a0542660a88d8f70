# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tral_monai.annotations.nuclei.files import (
    check_names,
    image_files,
    image_size_px,
    mat_variable,
    note_or_raise,
    read_mat,
    tcga_origin,
)
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError


def test_images_of_a_folder_by_stem(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "slide.svs"):
        (tmp_path / name).touch()
    assert list(image_files(tmp_path)) == ["a", "b", "slide"]
    assert image_files(tmp_path / "nowhere") == {}
    (tmp_path / "a.png").touch()
    with pytest.raises(AnnotationError, match=r"'a\.jpg' and 'a\.png' are two images of one name; rename or remove"):
        image_files(tmp_path)


def test_size_from_the_header(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "a.png")
    assert image_size_px(tmp_path / "a.png") == (7, 5)
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(AnnotationError, match=r"b\.png: not an image that can be read .*; copy it again"):
        image_size_px(tmp_path / "b.png")
    with pytest.raises(AnnotationError, match=r"c\.png: the image is not there; check the path"):
        image_size_px(tmp_path / "c.png")


def test_matlab_files(tmp_path):
    savemat(tmp_path / "a.mat", {"detection": np.eye(2)})
    content = read_mat(tmp_path / "a.mat")
    assert mat_variable(content, "detection", tmp_path / "a.mat").tolist() == [[1, 0], [0, 1]]
    with pytest.raises(AnnotationError, match=r"a\.mat: expected a variable 'inst_map', but found \['detection'\]"):
        mat_variable(content, "inst_map", tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:150])
    with pytest.raises(AnnotationError, match=r"b\.mat: not a MATLAB file that can be read"):
        read_mat(tmp_path / "b.mat")
    with pytest.raises(AnnotationError, match=r"c\.mat: the annotation is not there"):
        read_mat(tmp_path / "c.mat")


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("TCGA-A1-A0SP-DX1_id-5ea4_left-1", ("TCGA-A1-A0SP", "A1")),
        ("x_tcga-bh-a0b3-01Z-00-DX1", ("TCGA-BH-A0B3", "BH")),
        ("TCGA-A1-A0SP", ("TCGA-A1-A0SP", "A1")),
        ("TCGA-A1", (None, None)),
        ("train_1", (None, None)),
    ],
)
def test_patient_and_hospital_of_tcga_names(name, origin):
    assert tcga_origin(name) == origin


def test_errors_are_noted_or_raised():
    problems: list[str] = []
    note_or_raise(AnnotationError("a.png: broken"), problems)
    assert problems == ["a.png: broken (field left out)"]
    with pytest.raises(AnnotationError, match=r"a\.png: broken"):
        note_or_raise(AnnotationError("a.png: broken"), None)


def test_field_names_are_unique():
    fields = [
        NucleusField(
            name=name, image=None, width_px=1, height_px=1, mpp=0.5, boxes_px=np.empty((0, 4)), classes=(), ignored=[]
        )
        for name in "abca"
    ]
    check_names(fields[:3], "here")
    with pytest.raises(AnnotationError, match=r"here: the field names \['a'\] occur more than once; rename the images"):
        check_names(fields, "here")
