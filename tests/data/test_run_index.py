# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from tral_monai.annotations import Annotation, write_geojson
from tral_monai.data.run_index import RunIndex
from tral_monai.errors import CohortError, UnknownClassError


def box(x0, y0, x1, y1, class_name, name=None, color=None):
    """In tiles of 128 px."""
    return Annotation(shapely.box(x0 * 128, y0 * 128, x1 * 128, y1 * 128), class_name, name, color)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two slides of 8 x 6 tiles, all tissue. a: train. b: val and test, whose outlines share a tile."""
    for name in "ab":
        Image.fromarray(np.full((768, 1024, 3), (200, 120, 170), np.uint8)).save(tmp_path / f"{name}.png")
    write_geojson(tmp_path / "a.geojson", [box(0, 0, 2, 1, "Stroma", color=(1, 2, 3)), box(4, 4, 5, 5, "Muscle")])
    write_geojson(tmp_path / "b.geojson", [box(0, 0, 2, 1, "Muscle", "val"), box(1, 0, 3, 1, "Stroma", "test")])
    rows = [
        ("a.png", "a.geojson", "P1", "train", 0.25, ""),
        ("b.png", "b.geojson", "P2", "val", 0.25, "val"),
        ("b.png", "b.geojson", "P2", "test", 0.25, "test"),
    ]
    columns = ["slide", "annotations", "patient", "split", "mpp", "part"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path / "cohort.csv"


def places(table: pd.DataFrame) -> set[tuple[int, int, str]]:
    return {((x - 64) // 128, (y - 64) // 128, name) for x, y, name in table[["x_level0", "y_level0", "class"]].values}


def test_pool_and_splits(cohort, tmp_path):
    index = RunIndex(cohort, tmp_path / "run", allow_patient_overlap=True)
    assert index.classes == ("Muscle", "Stroma")
    assert places(index.pool) == {(0, 0, "Stroma"), (1, 0, "Stroma"), (4, 4, "Muscle")}
    # The tile that val and test both claim is in neither.
    assert places(index.split("val")) == {(0, 0, "Muscle")}
    assert places(index.split("test")) == {(2, 0, "Stroma")}
    info = index.info()
    assert info["class_pool_sizes"] == {"Muscle": 1, "Stroma": 2}
    assert info["split_sizes"] == {"train": 3, "val": 1, "test": 1}
    assert info["class_colors"] == {"Stroma": [1, 2, 3]}


def test_it_is_built_once_and_again_for_another_input(cohort, tmp_path):
    run = tmp_path / "run"
    first = RunIndex(cohort, run, allow_patient_overlap=True)
    written = (run / "index.parquet").stat().st_mtime_ns
    assert RunIndex(cohort, run, allow_patient_overlap=True).sha256 == first.sha256
    assert (run / "index.parquet").stat().st_mtime_ns == written
    write_geojson(tmp_path / "a.geojson", [box(0, 0, 1, 1, "Stroma")])
    changed = RunIndex(cohort, run, allow_patient_overlap=True)
    assert places(changed.pool) == {(0, 0, "Stroma")}
    assert changed.sha256 != first.sha256


def test_a_run_killed_between_index_and_note_builds_the_index_again(cohort, tmp_path, monkeypatch):
    run = tmp_path / "run"
    RunIndex(cohort, run, allow_patient_overlap=True)
    replaced = Path.replace

    def killed(self, target):
        if Path(target).name == "index.json":
            raise KeyboardInterrupt
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        RunIndex(cohort, run, allow_patient_overlap=True, coverage=0.9)
    monkeypatch.undo()
    assert not (run / "index.json").exists()  # the first settings' note would vouch for the second ones' index
    written = (run / "index.parquet").stat().st_mtime_ns
    RunIndex(cohort, run, allow_patient_overlap=True)
    assert (run / "index.parquet").stat().st_mtime_ns != written


def test_one_split_leaves_out_its_rivals_tiles_as_a_whole_index_does(cohort, tmp_path):
    whole = RunIndex(cohort, tmp_path / "whole", allow_patient_overlap=True)
    test = RunIndex(cohort, tmp_path / "test", allow_patient_overlap=True, splits=["test"])
    assert places(test.split("test")) == places(whole.split("test"))
    assert set(test.table["slide"]) == {"b.png"}


def test_one_split_needs_no_other(cohort, tmp_path):
    lines = cohort.read_text().splitlines()
    cohort.write_text("\n".join([lines[0], lines[3]]))
    (tmp_path / "a.png").unlink()
    index = RunIndex(cohort, tmp_path / "run", splits=["test"])
    assert places(index.split("test")) == {(1, 0, "Stroma"), (2, 0, "Stroma")}
    with pytest.raises(CohortError, match="no annotated tile lies in the splits 'train' and 'pool'"):
        RunIndex(cohort, tmp_path / "whole")


def test_a_class_map_by_the_name_of_one_that_the_package_brings(cohort, tmp_path):
    index = RunIndex(cohort, tmp_path / "run", allow_patient_overlap=True, class_map="bladder")
    assert index.classes == ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
    assert set(index.pool["class"]) == {"Muscle", "Stroma"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tset", "unknown split 'tset', expected train, val, test, pool"),
        ("pool", "cohort.csv has no row in split 'pool'; its rows are in the splits 'test' and 'train' and 'val'"),
    ],
)
def test_a_split_that_is_not_there(cohort, tmp_path, split, message):
    with pytest.raises(CohortError, match=message):
        RunIndex(cohort, tmp_path / "run", allow_patient_overlap=True, splits=[split])


def test_a_split_without_a_tile(cohort, tmp_path):
    write_geojson(tmp_path / "b.geojson", [box(0, 0, 2, 1, "Muscle", "val"), box(1, 0, 1.2, 1, "Stroma", "test")])
    with pytest.raises(CohortError, match="no annotated tile lies in split 'test'; check the annotations' class"):
        RunIndex(cohort, tmp_path / "run", allow_patient_overlap=True, splits=["test"])


def test_a_class_that_no_rule_knows(cohort, tmp_path):
    (tmp_path / "rules.yaml").write_text("classes: [Muscle]\nrules: [{match: Muscle, class: Muscle}]\n")
    with pytest.raises(UnknownClassError, match="no rule of the class map fits 'Stroma'"):
        RunIndex(cohort, tmp_path / "run", allow_patient_overlap=True, class_map=tmp_path / "rules.yaml")
