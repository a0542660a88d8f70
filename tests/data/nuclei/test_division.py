# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pandas as pd
import pytest

from tral_monai.data.nuclei.division import divide_classes, divide_fields, draw_fovs
from tral_monai.errors import CohortError, ConfigError

SETTINGS = {"folds": 3, "fold": 0, "group_by": "auto", "fold_of_slide": None, "val_fraction": 0.0, "seed": 0}


@pytest.fixture
def fields(make_field):
    """Six fields, two per patient, with ten nuclei each: nine of A, and one of B or, in the last two, of C."""
    box = (1, 1, 9, 9)
    return [
        make_field(f"f{n}", [*[("A", *box)] * 9, ("C" if n > 3 else "B", *box), ("D?", *box)], patient=f"p{n // 2}")
        for n in range(6)
    ]


def test_a_fold_is_tested_and_patients_stay_together(fields):
    tested = []
    for fold in range(3):
        parts, level, problems = divide_fields(fields, **{**SETTINGS, "fold": fold})
        assert (level, problems) == ("patient", [])
        assert parts.count("test") == 2
        assert all(parts[n] == parts[n + 1] for n in (0, 2, 4))
        tested += [n for n, part in enumerate(parts) if part == "test"]
    assert sorted(tested) == list(range(6))


def test_no_test_part_or_nothing_else(fields):
    assert divide_fields(fields, **{**SETTINGS, "fold": None})[0] == ["train"] * 6
    assert divide_fields(fields, **{**SETTINGS, "folds": 1})[0] == ["test"] * 6
    assert divide_fields(fields[:1], **{**SETTINGS, "folds": 1})[0] == ["test"]
    # Without a test part, folds count for nothing.
    assert divide_fields(fields[:1], **{**SETTINGS, "fold": None, "folds": 5, "group_by": "patient"})[0] == ["train"]


def test_validation(fields):
    parts = divide_fields(fields, **{**SETTINGS, "val_fraction": 0.3})[0]
    assert sorted(parts) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    parts = divide_fields(fields, **{**SETTINGS, "fold": None, "val_fraction": 0.3})[0]
    assert sorted(parts) == ["train"] * 4 + ["val"] * 2
    with pytest.raises(CohortError, match="2 folds need 2 images"):
        divide_fields(fields[:1], **{**SETTINGS, "fold": None, "val_fraction": 0.3})


def test_a_published_list(fields):
    settings = {**SETTINGS, "fold_of_slide": {"p0": 1, "p1": 2, "p2": 2}, "fold": 1}
    assert divide_fields(fields, **settings)[0] == ["train"] * 2 + ["test"] * 4
    torn = {"f0": 1, "f1": 2, "p1": 2, "p2": 2}
    _, _, problems = divide_fields(fields, **{**settings, "fold_of_slide": torn})
    assert problems == ["fold_of_slide puts 1 patients into more than one fold"]
    with pytest.raises(ConfigError, match=r"fold must be from 0 to 1 \(there are 2 folds\), but is 2"):
        divide_fields(fields, **{**settings, "fold": 2})


def test_classes(fields):
    found, problems = divide_classes(fields, known=["B", "A"], unknown=None, must_occur=True)
    assert (found.known, found.unknown, problems) == (("B", "A"), ("C",), [])
    found, problems = divide_classes(fields, known=["A"], unknown=["C", "X"], must_occur=True)
    assert (found.known, found.unknown) == (("A",), ("C", "X"))
    assert problems[0].startswith("class 'B' (4 nuclei) is neither known nor unknown: its nuclei are ignored; add it")
    # D is only there as ignored, so it does not occur.
    with pytest.raises(ConfigError, match=r"known classes \['D'\] do not occur .* classes are \['A', 'B', 'C'\]"):
        divide_classes(fields, known=["A", "D"], unknown=None, must_occur=True)
    assert divide_classes(fields, known=["A", "D"], unknown=None, must_occur=False)[0].unknown == ("B", "C")


def test_a_class_with_a_hash_sign(make_field):
    """MONAI turns every # of a configuration into ::, from --known to the classes of each round's training."""
    field = make_field("f", [(name, 1, 1, 9, 9) for name in ("Lym #1", "Tum", "a::b", "x#y")])
    for known in ("Lym #1", "Lym ::1"):  # as it is written, and as MONAI hands it over
        with pytest.raises(ConfigError, match=r"\['Lym #1'\] hold '#', which MONAI turns .* rename them in the annot"):
            divide_classes([field], known=["Tum", known], unknown=None, must_occur=True)
    found, _ = divide_classes([field], known=["Tum", "a::b"], unknown=["x::y", "Lym ::1"], must_occur=True)
    assert (found.known, found.unknown) == (("Tum", "a::b"), ("x#y", "Lym #1"))


def test_a_draw_keeps_the_shares():
    table = pd.DataFrame({"id": range(100), "part": ["train"] * 79 + ["val"] + ["test"] * 20})
    drawn = draw_fovs(table, 10, seed=0)
    assert drawn["part"].value_counts().to_dict() == {"train": 8, "test": 2, "val": 1}
    assert drawn["id"].is_monotonic_increasing
    assert drawn["id"].tolist() != draw_fovs(table, 10, seed=1)["id"].tolist()
    assert draw_fovs(table, None, seed=0) is table
    assert draw_fovs(table.drop(index=79), 10, seed=0)["part"].nunique() == 2
