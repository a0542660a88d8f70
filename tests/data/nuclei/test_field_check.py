# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.data.nuclei.field_check import check_fields, image_size
from tral_monai.errors import CohortError, SlideError, SlideReadError


def test_good_fields_pass_as_they_are(make_field, gradient):
    field = make_field(nuclei=[("A", 1, 1, 9, 9)], size=(100, 80), image=gradient())
    assert check_fields([field]) == ([field], [])


def test_bad_fields_are_named_and_left_out(make_field, gradient, tmp_path):
    good, half = gradient("good.png"), tmp_path / "half.png"
    half.write_bytes(good.read_bytes()[:-30])
    nuclei = [("A", 1, 1, 9, 9)]
    fields = [
        make_field("whole", nuclei, size=(100, 80), image=good),
        make_field("truncated", nuclei, image=half),
        make_field("missing", nuclei, image=tmp_path / "none.png"),
        make_field("imageless", nuclei),
        make_field("too_wide", nuclei, size=(100, 80), image=good, left_px=1),
    ]
    kept, problems = check_fields(fields)
    assert [field.name for field in kept] == ["whole"]
    assert [problem.split(":")[0] for problem in problems] == [
        "skipped truncated",
        "skipped missing",
        "skipped imageless",
        "skipped too_wide",
    ]
    assert "half.png: cannot be read as an image" in problems[0]
    assert "none.png: no such image" in problems[1]
    assert problems[2].endswith("it has no image")
    assert "annotated area (1, 0) to (101, 80) leaves good.png, which has 100 x 80 pixels" in problems[3]


def test_boxes_outside_are_left_out_and_counted(make_field):
    nuclei = [("A", 1, 1, 9, 9), ("B?", 120, 1, 130, 9), ("C", 50, 50, 50, 60), ("D?", 80, 80, 120, 120)]
    [kept], problems = check_fields([make_field("f", nuclei)], images=False)
    assert kept.classes == ("A", "D")
    assert kept.ignored.tolist() == [False, True]
    assert kept.boxes_px.tolist() == [[1, 1, 9, 9], [80, 80, 120, 120]]
    assert problems == ["f: 2 boxes outside the field or without area left out"]


def test_empty_fields_stay_and_readers_notes_are_kept(make_field):
    field = make_field("f", problems=("3 classes unknown", "f: a box repaired"))
    assert check_fields([field], images=False) == (
        [field],
        ["f: 3 classes unknown", "f: a box repaired", "f: no nucleus is annotated; the field is kept"],
    )


def test_nothing_to_use(make_field):
    with pytest.raises(CohortError, match="none of the 1 fields can be used; the first: skipped f: it has no image"):
        check_fields([make_field()])
    with pytest.raises(CohortError, match="there is no annotated field; check the data set's folder"):
        check_fields([])
    with pytest.raises(CohortError, match=r"must occur once, but these occur more often: \['f'\]"):
        check_fields([make_field(), make_field()], images=False)


def test_sizes_of_images_and_slides(gradient, slide, tmp_path):
    assert image_size(gradient()) == (100, 80)
    assert image_size(slide) == (512, 512)
    with pytest.raises(SlideReadError, match=r"x.png: no such image"):
        image_size(tmp_path / "x.png")
    with pytest.raises(SlideError, match=r"x.svs: no such file"):
        image_size(tmp_path / "x.svs")
