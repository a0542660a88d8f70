# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from tral_monai.data.nuclei.index_source import content_of_fields, content_of_folder, read_fold_list
from tral_monai.errors import AnnotationError, CohortError


def test_a_folder_changes_with_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("1")
    first = content_of_folder(tmp_path)
    assert first["files"] == 1
    assert content_of_folder(tmp_path) == first
    os.utime(tmp_path / "a" / "x.csv", ns=(1, 1))
    touched = content_of_folder(tmp_path)
    (tmp_path / "a" / "x.csv").rename(tmp_path / "a" / "y.csv")
    assert len({found["sha256"] for found in (first, touched, content_of_folder(tmp_path))}) == 3
    assert content_of_folder(tmp_path / "a" / "y.csv")["files"] == 1
    with pytest.raises(CohortError, match="there is no data set at '.*/b'; check dataset_dir"):
        content_of_folder(tmp_path / "b")


def test_fields_change_with_all_that_an_index_takes(make_field):
    base = {"name": "f", "nuclei": [("A", 1, 1, 9, 9)]}
    changes = [
        {},
        {"name": "g"},
        {"nuclei": [("B", 1, 1, 9, 9)]},
        {"nuclei": [("A?", 1, 1, 9, 9)]},
        {"nuclei": [("A", 1, 1, 9, 8)]},
        {"size": (100, 101)},
        {"mpp": 0.5},
        {"left_px": 3},
        {"slide": "s"},
        {"patient": "p"},
        {"hospital": "h"},
        {"problems": ("x",)},
    ]
    found = {content_of_fields([make_field(**{**base, **change})])["sha256"] for change in changes}
    assert len(found) == len(changes)
    assert content_of_fields([make_field(**base)]) == content_of_fields([make_field(**base)])


def test_fold_lists(tmp_path):
    assert read_fold_list(None) is None
    assert read_fold_list({"s": "3", 7: 1}) == {"s": 3, "7": 1}
    (tmp_path / "folds.csv").write_text("slide,fold,hospital\na,0,x\nb,1,x\na,0,y\n")
    assert read_fold_list(tmp_path / "folds.csv") == {"a": 0, "b": 1}


def test_the_fold_files_of_nucls(tmp_path):
    sides = {"fold_1_test": "a b", "fold_1_train": "c", "fold_2_test": "c", "fold_2_train": "a b"}
    sides |= {"fold_999_test": "a c", "fold_999_train": "a b c"}
    for name, slides in sides.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([",slide_name", *(f"0,{slide}" for slide in slides.split())]))
    assert read_fold_list(tmp_path) == {"a": 1, "b": 1, "c": 2}
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"expected fold_1_train.csv"):
        read_fold_list(tmp_path / "empty")


def test_fold_lists_that_cannot_be(tmp_path):
    with pytest.raises(CohortError, match=r"there is no list of folds 'x.csv'; check fold_of_slide"):
        read_fold_list(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("name,fold\na,0\n")
    with pytest.raises(CohortError, match=r"x.csv has the columns \['name', 'fold'\]; a list of folds has slide and"):
        read_fold_list(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("slide,fold\na,0\na,1\n")
    with pytest.raises(CohortError, match=r"x.csv puts slides into more than one fold: \['a'\]; a slide is tested"):
        read_fold_list(tmp_path / "x.csv")
