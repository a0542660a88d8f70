# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.data.nuclei.folds import assign_folds, choose_validation, given_folds, group_fields
from tral_monai.errors import CohortError, ConfigError


@pytest.fixture
def fields(make_field):
    """Six fields: slides s0 s0 s1 s2 s3 s3, patients p0 p0 p0 p1 p2 p2, hospitals h0 h0 h0 h0 h1 h1."""
    slides, patients, hospitals = (0, 0, 1, 2, 3, 3), (0, 0, 0, 1, 2, 2), (0, 0, 0, 0, 1, 1)
    return [
        make_field(f"f{number}", slide=f"s{s}", patient=f"p{p}", hospital=f"h{h}")
        for number, (s, p, h) in enumerate(zip(slides, patients, hospitals, strict=True))
    ]


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("hospital", [0, 0, 0, 0, 1, 1]),
        ("patient", [0, 0, 0, 1, 2, 2]),
        ("slide", [0, 0, 1, 2, 3, 3]),
        ("image", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_groups(fields, group_by, groups):
    level, found = group_fields(fields, group_by=group_by)
    assert (level, found.tolist()) == (group_by, groups)


@pytest.mark.parametrize(
    ("folds", "level"), [(2, "hospital"), (3, "patient"), (4, "slide"), (5, "image"), (6, "image")]
)
def test_auto_takes_the_coarsest_that_gives_enough_groups(fields, folds, level):
    assert group_fields(fields, group_by="auto", at_least=folds)[0] == level


def test_auto_passes_over_what_is_not_known_for_all(make_field):
    fields = [make_field(f"f{n}", patient=f"p{n}", hospital=f"h{n}" if n else None) for n in range(3)]
    assert group_fields(fields, at_least=3)[0] == "patient"


def test_a_patient_with_two_hospitals_joins_them(make_field):
    hospitals, patients = ("a", "b", "c", "b"), ("p", "p", "q", "r")
    fields = [
        make_field(f"f{n}", hospital=h, patient=p) for n, (h, p) in enumerate(zip(hospitals, patients, strict=True))
    ]
    assert group_fields(fields, group_by="hospital")[1].tolist() == [0, 0, 1, 0]


def test_regions_of_one_image_stay_together(make_field, tmp_path):
    fields = [make_field(name, image=tmp_path / image) for name, image in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert group_fields(fields, group_by="image")[1].tolist() == [0, 1, 0]


def test_group_errors(fields, make_field):
    with pytest.raises(ConfigError, match=r"group_by must be one of \['auto', .*'image'\], but is 'centre'"):
        group_fields(fields, group_by="centre")
    with pytest.raises(
        ConfigError, match=r"the patient of 1 of 2 fields is not known \(such as g\); use group_by=auto"
    ):
        group_fields([fields[0], make_field("g")], group_by="patient")
    message = "5 folds need 5 patients or more, but there are 3; use a finer group_by, fewer folds or more data"
    with pytest.raises(CohortError, match=message):
        group_fields(fields, group_by="patient", at_least=5)
    with pytest.raises(CohortError, match="7 folds need 7 images or more, but there are 6; use fewer folds or more"):
        group_fields(fields, at_least=7)


def test_equal_groups_are_divided_evenly():
    folds = assign_folds(np.arange(10), [7] * 10, 5, seed=3)
    assert np.bincount(folds).tolist() == [2] * 5


def test_a_heavy_group_has_a_fold_for_itself():
    folds = assign_folds(np.arange(5), [1000, 10, 10, 10, 10], 2, seed=0)
    assert sorted(np.bincount(folds).tolist()) == [1, 4]
    assert (folds == folds[0]).sum() == 1


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.integers(0, 500), min_size=1, max_size=60),
    folds=st.integers(1, 6),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_no_group_is_on_two_sides_and_folds_are_balanced(weights, folds, seed, data):
    groups = np.array(data.draw(st.lists(st.integers(0, 20), min_size=len(weights), max_size=len(weights))))
    names = np.unique(groups)
    if len(names) < folds:
        with pytest.raises(CohortError, match=f"{folds} folds need {folds} groups or more, but there are {len(names)}"):
            assign_folds(groups, weights, folds, seed=seed)
        return
    found = assign_folds(groups, weights, folds, seed=seed)
    assert all(len(set(found[groups == name])) == 1 for name in names)
    assert set(found) == set(range(folds))
    # A group counts one more than its nuclei.
    of_group = np.array([sum(w for w, g in zip(weights, groups, strict=True) if g == name) + 1 for name in names])
    load = np.bincount([found[groups == name][0] for name in names], weights=of_group, minlength=folds)
    assert load.max() - load.min() <= of_group.max()
    assert np.array_equal(found, assign_folds(groups, weights, folds, seed=seed))


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_class_is_in_every_fold_where_that_can_be(seed):
    # 30 images of 100 nuclei; 15 nuclei of a rare class in each of six images.
    nuclei = np.array([[100 - 15 * (n < 6), 15 * (n < 6)] for n in range(30)])
    folds = assign_folds(np.arange(30), nuclei, 3, seed=seed)
    rare = np.bincount(folds, weights=nuclei[:, 1])
    assert rare.min() >= 15  # half of the fair share of 30
    assert np.bincount(folds).tolist() == [10] * 3


def test_a_class_in_one_image_does_no_harm():
    folds = assign_folds(np.arange(10), [[5, 0]] * 9 + [[4, 1]], 5)
    assert np.bincount(folds).tolist() == [2] * 5


def test_another_seed_is_another_division():
    divisions = {tuple(assign_folds(np.arange(27), [500 + 10 * n for n in range(27)], 5, seed=s)) for s in range(10)}
    assert len(divisions) == 10


def test_no_fold():
    with pytest.raises(ConfigError, match="folds must be at least 1, but is 0"):
        assign_folds(np.arange(3), [1] * 3, 0)


def test_published_folds(fields):
    assert given_folds(fields, {"s0": 1, "s1": 1, "s2": 3, "s3": 999}).tolist() == [0, 0, 0, 1, 2, 2]
    assert given_folds(fields, {"p0": 5, "p1": 4, "p2": 4}).tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(CohortError, match="the list of folds lacks 2 slides, such as s2; add them, or leave out fold"):
        given_folds(fields, {"s0": 1, "s1": 2})
    with pytest.raises(CohortError, match=r"f0: the list puts it in the folds \[1, 2\]; a field is tested once"):
        given_folds(fields[:1], {"s0": 1, "p0": 2})


def test_validation_takes_whole_groups_up_to_its_share():
    groups, weights = np.repeat(np.arange(10), 2), [50] * 20
    taken = choose_validation(groups, weights, 0.2, seed=1)
    assert taken.sum() == 4
    assert all(taken[2 * group] == taken[2 * group + 1] for group in range(10))
    assert not choose_validation(groups, weights, 0.0).any()
    assert (choose_validation(groups, weights, 0.2, seed=2) != taken).any()


def test_validation_leaves_a_group_for_training():
    assert choose_validation(np.arange(2), [10, 10], 0.99).sum() == 1
    with pytest.raises(CohortError, match="2 folds need 2 groups or more, but there are 1; .*val_fraction"):
        choose_validation(np.zeros(3, int), [1, 1, 1], 0.1)
    with pytest.raises(ConfigError, match="val_fraction must be from 0 to below 1, but is 1.0"):
        choose_validation(np.arange(2), [1, 1], 1.0)
