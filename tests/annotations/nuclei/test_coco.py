# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from PIL import Image

from tral_monai.annotations.nuclei.coco import read_coco, write_coco
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError


def annotation(image_id=1, category_id=7, **keys):
    return {"image_id": image_id, "category_id": category_id, "bbox": [2, 3, 10, 4], **keys}


def write(folder, annotations=(), *, image=None, categories=None, file="annotations.json", place="images", **more):
    (folder / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / place / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30, "mpp": 0.5, **(image or {})}],
        "annotations": list(annotations),
        "categories": categories or [{"id": 7, "name": "tumor"}, {"id": 9, "name": "stromal"}],
        **more,
    }
    (folder / file).write_text(json.dumps(content))
    return folder


def test_boxes_crowds_and_polygons(tmp_path):
    polygon = {"bbox": None, "segmentation": [[5, 6, 15, 6, 15, 12], [20, 8, 22, 14, 21, 10]]}
    crowd = {"iscrowd": 1, "bbox": [0, 0, 5, 5]}
    origin = {"slide": "s1", "patient": 12, "hospital": "h"}
    write(tmp_path, [annotation(), annotation(category_id=9, **polygon), annotation(**crowd)], image=origin)
    (field,) = read_coco(tmp_path)
    assert field.boxes_px.tolist() == [[2, 3, 12, 7], [5, 6, 22, 14], [0, 0, 5, 5]]
    assert field.classes == ("tumor", "stromal", "tumor")
    assert field.ignored.tolist() == [False, False, True]
    assert (field.name, field.image, field.mpp) == ("a", tmp_path / "images/a.png", 0.5)
    assert (field.slide, field.patient, field.hospital) == ("s1", "12", "h")
    assert (field.width_px, field.height_px, field.problems) == (40, 30, ())


@pytest.mark.parametrize("place", ["images", "."])
def test_images_beside_the_file_or_in_images(tmp_path, place):
    write(tmp_path, place=place, file="instances.json")
    assert read_coco(tmp_path)[0].image == tmp_path / place / "a.png"
    assert read_coco(tmp_path / "instances.json", mpp=0.25)[0].mpp == 0.25


def test_bad_nuclei_are_reported_by_the_fields_name(tmp_path):
    nuclei = [
        annotation(bbox=[35, 3, 10, 4]),
        annotation(bbox=[50, 3, 10, 4]),
        annotation(bbox=[5, 3, 0, 4]),
        annotation(bbox=[], segmentation={"counts": "xx", "size": [30, 40]}),
        annotation(bbox=["a", 3, 0, 4]),
        annotation(category_id=8),
        annotation(category_id=7, bbox=[1, 1, 2, 2]),
    ]
    (field,) = read_coco(write(tmp_path, nuclei))
    assert field.boxes_px.tolist() == [[35, 3, 40, 7], [2, 3, 12, 7], [1, 1, 3, 3]]
    assert field.classes == ("tumor", "ignored", "tumor")
    assert field.ignored.tolist() == [False, True, False]
    assert field.problems == (
        "a: annotations without a box or polygon left out: 2",
        "a: class '8' (1 nuclei) is not one of 7 (tumor), 9 (stromal); these nuclei are ignored",
        "a: 1 box of no area left out",
        "a: 1 box outside the annotated area left out",
        "a: 1 box partly outside the annotated area clipped",
    )


def test_an_empty_field_is_kept(tmp_path):
    (field,) = read_coco(write(tmp_path))
    assert len(field) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {"mpp": None}}, r"a\.png: .* records no micrometres per pixel \(mpp is None\); give mpp="),
        ({"image": {"mpp": -1}}, r"mpp is -1"),
        ({"image": {"width": 80}}, r"a\.png: the image is 40 x 30 px, but annotations\.json says 80 x 30"),
        ({"image": {"file_name": "b.png"}}, r"b\.png: the image is neither beside annotations\.json nor in images"),
        ({"image": {"file_name": ""}}, "the image is neither beside"),
        ({"image": {"annotated_px": [0, 0, 41, 30]}}, r"annotated_px must be .* of 40 x 30 px, but is \[0, 0, 41"),
        ({"annotations": [annotation(image_id=5)]}, r"1 annotations belong to images that are not listed: \[5\]"),
        ({"annotations": [{"bbox": [0, 0, 1, 1]}]}, "expected an annotation to have 'image_id', but found"),
        ({"annotations": [{"bbox": [0, 0, 1, 1], "image_id": 1}]}, "expected an annotation to have 'category_id'"),
        ({"images": [{"id": 1, "file_name": "a.png", "mpp": 1}] * 2}, "two images have one id"),
        ({"images": [{"id": i, "file_name": "a.png", "mpp": 1} for i in (1, 2)]}, r"names \['a'\] occur more than"),
        ({"categories": [{"name": "tumor"}]}, "expected a category to have 'id'"),
        ({"categories": {"name": "tumor"}}, "expected COCO's lists images, annotations and categories, but found"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(AnnotationError, match=message):
        read_coco(write(tmp_path, **changes))


def test_files_that_are_not_coco(tmp_path):
    write(tmp_path)
    (tmp_path / "annotations.json").write_text('{"images": [')
    with pytest.raises(AnnotationError, match=r"annotations\.json, line 1: not valid JSON .*; export it again"):
        read_coco(tmp_path)
    (tmp_path / "annotations.json").rename(tmp_path / "b.json")
    (tmp_path / "c.json").touch()
    with pytest.raises(AnnotationError, match=r"annotations.json or one JSON file, but found \['b.json', 'c.json'\]"):
        read_coco(tmp_path)


def test_a_damaged_image_is_noted_and_the_others_are_read(tmp_path):
    write(tmp_path, images=[{"id": i, "file_name": f"{i}.png", "mpp": 1} for i in (1, 2)])
    Image.new("RGB", (8, 8)).save(tmp_path / "images/1.png")
    (tmp_path / "images/2.png").write_text("broken")
    problems: list[str] = []
    assert [field.name for field in read_coco(tmp_path, problems=problems)] == ["1"]
    assert "2.png: not an image that can be read" in problems[0]


def test_what_is_written_comes_back(tmp_path):
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    paths = [tmp_path / "data/images/a.png", tmp_path / "elsewhere/b.png"]
    for path in paths:
        Image.new("RGB", (64, 48)).save(path)
    boxes = np.array([[0.1, 0.2, 10.3, 20.7], [5, 5, 9, 30]], np.float32)
    whole = {
        "width_px": 64,
        "height_px": 48,
        "boxes_px": boxes,
        "classes": ("tumor", "ignored"),
        "ignored": [False, True],
    }
    part = {
        "width_px": 30,
        "height_px": 40,
        "left_px": 20,
        "top_px": 6,
        "boxes_px": boxes,
        "classes": ("tumor", "plasma"),
    }
    fields = [
        NucleusField(name="one", image=paths[0], mpp=0.25, slide="s", patient="p", hospital="h", **whole),
        NucleusField(name="two", image=paths[1], mpp=0.5, ignored=[False, False], **part),
        NucleusField(
            name="none", image=paths[1], width_px=64, height_px=48, mpp=0.5, boxes_px=[], classes=(), ignored=[]
        ),
    ]
    write_coco(fields, tmp_path / "data/annotations.json")
    back = read_coco(tmp_path / "data")
    for old, new in zip(fields, back, strict=True):
        for key in (
            "name",
            "mpp",
            "width_px",
            "height_px",
            "left_px",
            "top_px",
            "slide",
            "patient",
            "hospital",
            "classes",
        ):
            assert getattr(new, key) == getattr(old, key), key
        assert new.image.resolve() == old.image
        assert new.ignored.tolist() == old.ignored.tolist()
        np.testing.assert_allclose(new.boxes_px, old.boxes_px, rtol=0, atol=1e-5)
    assert str(tmp_path) not in (tmp_path / "data/annotations.json").read_text()


def test_only_fields_with_an_image_can_be_written(tmp_path):
    field = NucleusField(name="f", image=None, width_px=1, height_px=1, mpp=1, boxes_px=[], classes=(), ignored=[])
    with pytest.raises(AnnotationError, match="f: COCO needs the image of a field, but it has none"):
        write_coco([field], tmp_path / "a.json")
    with pytest.raises(AnnotationError, match=r"a\.json: the field names \['f'\] occur more than once"):
        write_coco([field, field], tmp_path / "a.json")
