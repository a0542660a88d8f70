# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tral_monai.annotations.geojson import read_geojson
from tral_monai.data.generated.cohort import assign_splits, generate_cohort, plan_with_all_classes
from tral_monai.data.generated.layout import CLASSES
from tral_monai.errors import ConfigError
from tral_monai.slides.slide import open_slide


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_table_has_every_split_and_both_hospitals(tiny_cohort: Path):
    rows = _rows(tiny_cohort)
    assert [(r["patient"], r["split"], r["hospital"]) for r in rows] == [
        ("A-01", "train", "A"),
        ("A-02", "val", "A"),
        ("B-01", "train", "B"),
        ("B-02", "test", "B"),
    ]
    assert all((tiny_cohort.parent / r["slide"]).is_file() for r in rows)


def test_every_slide_has_all_five_classes(tiny_cohort: Path):
    for row in _rows(tiny_cohort):
        names = {a.class_name for a in read_geojson(tiny_cohort.parent / row["annotations"])}
        assert names == set(CLASSES)


def test_slides_record_the_scanner(tiny_cohort: Path):
    for row in _rows(tiny_cohort):
        with open_slide(tiny_cohort.parent / row["slide"]) as slide:
            assert slide.mpp == pytest.approx({"A": 0.25, "B": 0.23}[row["hospital"]], rel=1e-5)
            corner = slide.read((0, 0), (64, 64), level=0)
        assert corner.mean() > 230  # glass


def test_same_seed_same_bytes_with_any_number_of_workers(tiny_cohort: Path, tmp_path: Path):
    again = generate_cohort(tmp_path / "again", preset="tiny", seed=0, workers=1)
    files = [p.relative_to(tiny_cohort.parent) for p in tiny_cohort.parent.rglob("*") if p.is_file()]
    assert len(files) == 10  # table, record, four slides, four annotations
    for file in files:
        assert (again.parent / file).read_bytes() == (tiny_cohort.parent / file).read_bytes()


def test_a_finished_cohort_is_left_alone_and_an_unfinished_one_is_not(tiny_cohort: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_cohort.parent, folder)
    steps: list[tuple[int, int]] = []
    generate_cohort(folder, preset="tiny", seed=0, progress=lambda done, total: steps.append((done, total)))
    assert steps == []
    slide = folder / "slides" / "A-01.tif"
    whole = slide.read_bytes()
    slide.write_bytes(b"")
    (folder / "generated.json").write_text("{", encoding="utf-8")
    generate_cohort(folder, preset="tiny", seed=0, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert slide.read_bytes() == whole
    assert json.loads((folder / "generated.json").read_text(encoding="utf-8"))["seed"] == 0


def test_splits_never_miss_a_kind():
    assert assign_splits(2, shift=False) == (("train", "val"), ("train", "test"))
    for count in (3, 4, 9):
        a, b = assign_splits(count, shift=False)
        assert a == b
        assert set(a) == {"train", "val", "test"}
    assert Counter(assign_splits(4, shift=False)[0]) == {"train": 2, "val": 1, "test": 1}


def test_shift_trains_on_one_hospital_and_asks_in_the_other():
    a, b = assign_splits(4, shift=True)
    assert set(a) == {"train"}
    assert b == ("pool", "val", "test", "pool")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, "preset must be one of default, tiny, not 'huge'"),
        ({"slides_per_hospital": 1}, "slides_per_hospital must be at least 2 .* but is 1"),
        ({"slides_per_hospital": 2, "shift": True}, "slides_per_hospital must be at least 3 with shift=True"),
        ({"size_px": 1000}, "size_px must be at least 1536 .* but is 1000"),
        ({"seed": -1}, "seed must be 0 or more, but is -1"),
        ({"workers": 0}, "workers must be 1 or more, but is 0"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, arguments: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        generate_cohort(tmp_path, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_room_for_all_classes_says_so():
    with pytest.raises(ConfigError, match="no slide of 1536 px at 0.25 um per px holds all five classes"):
        plan_with_all_classes(
            np.random.default_rng(0), size_px=1536, mpp=0.25, tiles_per_class={"Blood": 9.0}, least_tiles=300
        )
