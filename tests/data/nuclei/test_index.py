# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tral_monai.data.nuclei.index import NucleusIndex
from tral_monai.errors import CohortError, ConfigError

NUCLEI = [("Tum", 5, 5, 25, 25), ("Lym", 30, 10, 44, 24), ("Mac", 60, 40, 80, 60), ("Tum", 70, 5, 90, 25)]


@pytest.fixture
def fields(make_field, gradient):
    """Ten fields of 100 x 80 px, two per patient, two patients per hospital (five patients, three hospitals)."""
    return [
        make_field(
            f"f{n}",
            NUCLEI,
            size=(100, 80),
            image=gradient(f"f{n}.png"),
            patient=f"p{n // 2}",
            hospital=f"h{n // 4}",
        )
        for n in range(10)
    ]


def make(fields, output_dir=None, **more):
    return NucleusIndex.from_fields(fields, output_dir, **{"known": ["Tum", "Lym"], "fov_px": None, **more})


def test_parts_and_classes(fields):
    index = make(fields)
    assert index.classes == ("Tum", "Lym")
    assert index.open_set.unknown == ("Mac",)
    assert index.group_by == "patient"  # the three hospitals are too few for five folds
    assert index.problems == ()
    test, pool = index.split("test"), index.pool
    assert (len(test), len(pool), len(index.split("val"))) == (2, 8, 0)
    assert test["patient"].nunique() == 1
    assert set(test["patient"]).isdisjoint(pool["patient"])
    assert pool["classes"].tolist() == [("Tum", "Lym", "Mac", "Tum")] * 8
    assert index.answered("train")["classes"].tolist() == [("Tum", "Lym", "unknown", "Tum")] * 8


def test_the_folds_test_each_field_once(fields):
    tested = [name for fold in range(5) for name in make(fields, fold=fold).split("test")["field"]]
    assert sorted(tested) == sorted(field.name for field in fields)


def test_info(fields):
    info = make(fields, fov_px=50, min_box_px=15, val_fraction=0.25).info()
    # Tiles of 50 x 40: only Lym's box (14 px) is under 15, so it is ignored in every field.
    # Five patients of two fields: one tests, one of the other four validates.
    assert info["part_sizes"] == {"train": 6 * 4, "val": 2 * 4, "test": 2 * 4}
    assert info["nuclei"]["test"] == {"Tum": 4, "Lym": 0, "Mac": 2, "ignored": 2}
    assert info["open_set"] == {"known": ["Tum", "Lym"], "unknown": ["Mac"]}
    assert info["class_pool_sizes"]["Lym"] == 0
    assert set(info["class_colors"]) == {"Tum", "Lym", "unknown", "ignored"}
    assert info["index_settings"]["fov_px"] == 50
    assert info["fov_mpp"] == 0.25
    assert len(info["problems"]) == 2
    json.dumps(info)  # it goes into reports


def test_it_is_built_once_and_again_for_other_settings_or_fields(fields, tmp_path):
    run = tmp_path / "run"
    first = make(fields, run, fold=1)
    written = (run / "fovs.parquet").stat().st_mtime_ns
    again = make(fields, run, fold=1)
    assert (run / "fovs.parquet").stat().st_mtime_ns == written
    assert again.sha256 == first.sha256
    assert again.info() == first.info()
    assert again.table["classes"].tolist() == first.table["classes"].tolist()
    assert make(fields, run, fold=2).sha256 != first.sha256
    assert make(fields[:-2], run, fold=1, folds=4).sha256 != first.sha256
    assert make(fields, run, fold=1).sha256 == first.sha256


def test_the_hash_is_of_the_content_not_of_the_place(fields, make_field, gradient, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = []
    for field in fields:
        (elsewhere / field.image.name).write_bytes(field.image.read_bytes())
        more = {"patient": field.patient, "hospital": field.hospital}
        moved.append(make_field(field.name, NUCLEI, size=(100, 80), image=elsewhere / field.image.name, **more))
    assert make(moved).sha256 == make(fields).sha256
    assert make(fields, known=["Lym", "Tum"]).sha256 != make(fields).sha256
    other = make_field("f9", [*NUCLEI[:3], ("Tum", 70, 5, 90, 26)], size=(100, 80), image=fields[9].image, patient="p4")
    assert make([*fields[:9], other], group_by="patient").sha256 != make(fields).sha256


def test_a_run_killed_between_table_and_note_builds_the_index_again(fields, tmp_path, monkeypatch):
    run = tmp_path / "run"
    make(fields, run)
    replaced = Path.replace

    def killed(self, target):
        if Path(target).name == "fovs.json":
            raise KeyboardInterrupt
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        make(fields, run, fov_px=50)
    monkeypatch.undo()
    assert not (run / "fovs.json").exists()
    assert len(make(fields, run).table) == 10


def test_whole_training_set_and_whole_test_set(fields):
    assert set(make(fields, fold=None).table["part"]) == {"train"}
    evaluation = make(fields[:1], folds=1)
    assert set(evaluation.table["part"]) == {"test"}
    assert evaluation.info()["class_pool_sizes"] == {"Tum": 0, "Lym": 0}


def test_validation_is_taken_from_training_in_whole_patients(fields):
    index = make(fields, val_fraction=0.2)
    val = index.split("val")
    assert len(val) == 2
    assert val["patient"].nunique() == 1
    assert set(val["patient"]).isdisjoint(index.pool["patient"])
    assert index.split("test")["field"].tolist() == make(fields).split("test")["field"].tolist()


@pytest.mark.parametrize("as_file", [False, True])
def test_published_folds(fields, tmp_path, as_file):
    folds = {f"p{n}": 1 + n % 2 for n in range(5)}
    if as_file:
        lines = [f"{name},{fold}" for name, fold in folds.items()]
        (tmp_path / "folds.csv").write_text("\n".join(["slide_name,fold", *lines]))
    index = make(fields, fold_of_slide=tmp_path / "folds.csv" if as_file else folds, fold=1)
    assert sorted(index.split("test")["patient"].unique()) == ["p1", "p3"]
    assert index.problems == ("fold_of_slide puts 2 hospitals into more than one fold",)
    with pytest.raises(ConfigError, match=r"fold must be from 0 to 1 \(there are 2 folds\), but is 2"):
        make(fields, fold_of_slide=folds, fold=2)


def test_classes_on_neither_side_are_ignored_and_named(fields, caplog):
    with caplog.at_level(logging.WARNING):
        index = make(fields, known=["Tum"], unknown=["Mac"])
    assert index.pool["classes"].tolist() == [("Tum", "ignored", "Mac", "Tum")] * 8
    assert index.problems[0].startswith("class 'Lym' (10 nuclei) is neither known nor unknown")
    assert "class 'Lym' (10 nuclei)" in caplog.text


def test_a_known_class_without_nuclei_in_a_part_is_named(fields, make_field):
    rare = make_field("g", [("Rare", 5, 5, 25, 25)], image=fields[0].image, size=(100, 80), patient="p0", hospital="h0")
    folds = {f"p{n}": n for n in range(5)}
    index = make([*fields, rare], known=["Tum", "Rare"], fold_of_slide=folds)
    assert "known class 'Rare' has no nucleus in the train part: a detector cannot learn it" in index.problems
    index = make([*fields, rare], known=["Tum", "Rare"], fold_of_slide=folds, fold=1)
    assert "known class 'Rare' has no nucleus in the test part: its AP is not defined" in index.problems


def test_no_known_class_in_the_test_part(fields, make_field):
    rare = make_field("g", [("Rare", 5, 5, 25, 25)], image=fields[0].image, size=(100, 80), patient="p0")
    folds = {f"p{n}": n for n in range(5)}
    message = r"no known class of \['Rare'\] has a nucleus in the test part; .* \(there: \['Lym', 'Mac', 'Tum'\]\)"
    with pytest.raises(CohortError, match=message):
        make([*fields, rare], known=["Rare"], fold_of_slide=folds, fold=1)


def test_fields_without_nuclei_and_without_images(fields, make_field, tmp_path):
    (tmp_path / "f3.png").write_bytes(b"no image")
    empty = make_field("empty", image=fields[0].image, size=(100, 80), patient="p0")
    index = make([*fields, empty], folds=2)
    assert index.problems[0].startswith("skipped f3: f3.png: cannot be read as an image")
    assert "empty: no nucleus is annotated; the field is kept" in index.problems
    assert len(index.table) == 10
    for field in fields:
        field.image.unlink()
    with pytest.raises(CohortError, match=r"none of the 10 fields can be used; the first: skipped f0: f0.png: no such"):
        make(fields)
    assert len(make(fields, check_images=False).table) == 10


def test_max_fovs_keeps_the_shares(fields):
    whole, small = make(fields, fov_px=50), make(fields, fov_px=50, max_fovs=10)
    assert len(whole.table) == 40
    assert small.info()["part_sizes"] == {"train": 8, "test": 2}
    assert set(small.table["id"]) <= set(whole.table["id"])
    assert small.sha256 == make(fields, fov_px=50, max_fovs=10).sha256


def test_a_data_set_on_disk(tmp_path):
    with pytest.raises(CohortError, match="there is no data set at '.*nowhere'; check dataset_dir"):
        NucleusIndex("consep", tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(ConfigError, match="dataset_dir is missing"):
        NucleusIndex("consep", None, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_fovs": 1}, ConfigError, "max_fovs must be at least 2, or None for all, but is 1"),
        ({"known": "Tum"}, ConfigError, "known and unknown must be lists of class names, but one is a text"),
        ({"known": ["Tumor"]}, ConfigError, r"known classes \['Tumor'\] do not occur .* classes are \['Lym', 'Mac'"),
        ({"fold": 5}, ConfigError, r"fold must be from 0 to 4 \(there are 5 folds\), but is 5"),
        ({"folds": 11}, CohortError, "11 folds need 11 images or more, but there are 10"),
        ({"fov_px": 1}, ConfigError, "fov_px must be at least 16"),
    ],
)
def test_settings_that_do_not_fit(fields, settings, error, message):
    with pytest.raises(error, match=message):
        make(fields, **settings)


def test_an_unknown_part(fields):
    with pytest.raises(CohortError, match="unknown part 'tset' of a nucleus index, expected train, val, test"):
        make(fields).split("tset")


def test_fields_of_different_resolution_need_a_word(fields, make_field):
    other = make_field("g", NUCLEI, size=(100, 80), mpp=0.5, image=fields[0].image, patient="p0")
    with pytest.raises(ConfigError, match="say at which resolution"):
        make([*fields, other])
    index = make([*fields, other], fov_mpp=0.5)
    assert np.allclose(index.table["fov_mpp"], 0.5)


def test_consep(tral_data, tmp_path):
    index = NucleusIndex("consep", tral_data / "consep", tmp_path / "run", open_set="5+2", fov_px=250, min_box_px=1)
    assert index.open_set.unknown == ("endothelial", "other")
    assert len(index.classes) == 5
    assert len(index.table) == 432
    assert index.table["image"].nunique() == 27
    counts = index.info()["nuclei"]
    named = sum(count for part in counts.values() for name, count in part.items() if name != "ignored")
    assert named == 15_555


def test_a_field_that_cannot_be_read_is_named_and_left_out(tral_data, tmp_path):
    folder = tmp_path / "consep"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for number in (1, 2, 3):
            source = next((tral_data / "consep" / part).glob(f"train_{number}.*"))
            (folder / part / source.name).symlink_to(source)
    (folder / "labels" / "train_2.mat").unlink()
    (folder / "labels" / "train_2.mat").write_bytes(b"not a mat file")
    index = NucleusIndex("consep", folder, tmp_path / "run", known=["fibroblast"], folds=2)
    assert sorted(index.table["field"].unique()) == ["train_1", "train_3"]
    assert any(problem.startswith("skipped") and "train_2" in problem for problem in index.problems)
    # The note knows the files: another one changes what is read.
    before = index.sha256
    (folder / "labels" / "train_2.mat").unlink()
    (folder / "images" / "train_2.png").unlink()
    again = NucleusIndex("consep", folder, tmp_path / "run", known=["fibroblast"], folds=2)
    assert again.sha256 == before
    assert not any("train_2" in problem for problem in again.problems)
