# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from tests.rounds.nuclei.conftest import OPEN_SET, row
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError, PoolError, UnknownClassError
from tral_monai.metrics.annotation_cost import AnnotationTime
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle, FieldOracle, NoisyFieldOracle, get_field_oracle

TIME = AnnotationTime(seconds_per_image=12, seconds_per_box=6, seconds_per_class=3)


def test_the_archive_names_known_nuclei_and_ticks_the_others(table):
    answers = ArchiveFieldOracle(table, OPEN_SET, time=TIME).label([2, 0, 3])
    assert answers.ids.tolist() == [2, 0, 3]
    assert answers.answers == (("tumour", "tumour"), ("tumour", "unknown", "ignored", "lymphocyte"), ())
    assert [boxes.tolist() for boxes in answers.boxes_px[1:]] == [table["boxes_px"][0].tolist(), []]
    # Four boxes: two of known nuclei, one of an unknown and one of an ambiguous one, all of them drawn.
    assert answers.cost_boxes.tolist() == [2.0, 4.0, 0.0]
    # 12 + 2 * 6 + 2 * 3 s, 12 + 4 * 6 + 2 * 3 s, 12 s.
    assert answers.cost_minutes.tolist() == pytest.approx([0.5, 0.7, 0.2])


def test_a_field_that_is_not_in_the_archive(table):
    with pytest.raises(PoolError, match="the archive has no field of view 7 \\(2 missing in all\\)"):
        ArchiveFieldOracle(table, OPEN_SET).label([0, 7, 8])


def test_a_class_that_nobody_placed(table):
    with pytest.raises(UnknownClassError, match="class 'vessel' is neither known"):
        ArchiveFieldOracle(table, OpenSet(("lymphocyte", "tumour"), ("fat",)))


@pytest.fixture
def crowd():
    """2,000 nuclei of each known class and as many unknown ones, in 300 fields of view."""
    return pd.DataFrame([row(i, ("tumour", "lymphocyte", "fat", "ignored") * 5) for i in range(300)])


def noisy(crowd, **options):
    return NoisyFieldOracle(ArchiveFieldOracle(crowd, OPEN_SET, time=TIME), crowd, OPEN_SET, **options)


def test_wrong_classes_at_the_rate_asked(crowd):
    said = noisy(crowd, rate=0.3, missed=0.0, jitter_px=0.0).label(crowd["id"]).answers
    truth = ArchiveFieldOracle(crowd, OPEN_SET).label(crowd["id"])
    pairs = pd.DataFrame({"truth": np.concatenate(truth.answers), "said": np.concatenate(said)})
    wrong = pairs[pairs["truth"] != pairs["said"]].groupby("truth").size() / pairs.groupby("truth").size()
    assert wrong.dropna().to_dict() == pytest.approx({"tumour": 0.3, "lymphocyte": 0.3, "unknown": 0.3}, abs=0.04)
    assert set(pairs.loc[pairs["truth"] == "ignored", "said"]) == {"ignored"}
    # An error is as likely to fall on one wrong answer as on the other.
    of_tumour = pairs.loc[pairs["truth"] == "tumour", "said"].value_counts(normalize=True)
    assert of_tumour["lymphocyte"] == pytest.approx(0.15, abs=0.03)
    assert of_tumour["unknown"] == pytest.approx(0.15, abs=0.03)


def test_a_confusion_matrix(crowd):
    # Lymphocytes are called tumour, tumour cells unknown, unknown ones are told right.
    matrix = [[0, 1, 0], [0, 0, 1], [0, 0, 1]]
    said = noisy(crowd, confusion=matrix, missed=0.0, jitter_px=0.0).label([5]).answers[0]
    assert said == ("unknown", "tumour", "unknown", "ignored") * 5


def test_missed_nuclei_are_not_drawn_and_cost_nothing(crowd):
    answers = noisy(crowd, rate=0.0, missed=0.1, jitter_px=0.0).label(crowd["id"])
    assert answers.cost_boxes.sum() / (300 * 20) == pytest.approx(0.9, abs=0.015)
    for boxes, names, cost, minutes in zip(
        answers.boxes_px, answers.answers, answers.cost_boxes, answers.cost_minutes, strict=True
    ):
        assert len(boxes) == len(names) == cost
        known = sum(name in OPEN_SET.known for name in names)
        assert minutes == pytest.approx((12 + 6 * cost + 3 * known) / 60)


def test_boxes_are_a_little_off_and_stay_inside(crowd):
    answers = noisy(crowd, rate=0.0, missed=0.0, jitter_px=2.0).label(crowd["id"])
    moved = np.stack(answers.boxes_px)
    shift = moved - np.stack(list(crowd["boxes_px"]))
    inside = shift[:, 1:5]  # away from the edges, at x = 10 to 48
    assert np.abs(inside).max() <= 2.0
    assert inside.mean() == pytest.approx(0.0, abs=0.05)
    assert inside.std() == pytest.approx(2 / np.sqrt(3), abs=0.05)  # uniform over -2 to 2
    assert moved.min() >= 0.0
    assert moved[:, :6].max() <= 64.0
    assert (moved[:, :6, 2:] > moved[:, :6, :2]).all()


def test_a_box_does_not_shrink_away():
    small = pd.DataFrame([row(0, ("tumour",) * 3)])
    small.at[0, "boxes_px"] = np.array([[10, 10, 12, 12], [30, 30, 31, 31], [63, 63, 64, 64]], np.float32)
    for seed in range(30):
        boxes = noisy(small, rate=0.0, missed=0.0, jitter_px=8.0, seed=seed).label([0]).boxes_px[0]
        assert ((boxes[:, 2:] - boxes[:, :2]) >= [[1.0], [0.5], [0.5]]).all()
        assert boxes.dtype == np.float32


def test_the_same_field_is_answered_alike_in_any_order(crowd):
    first, second = noisy(crowd, seed=3), noisy(crowd, seed=3)
    together, alone = first.label([7, 1, 4]), second.label([4])
    assert together.answers[2] == alone.answers[0]
    assert together.boxes_px[2].tolist() == alone.boxes_px[0].tolist()
    assert noisy(crowd, seed=4).label([4]).boxes_px[0].tolist() != alone.boxes_px[0].tolist()


def test_one_error_leaves_the_others_as_they_were(crowd):
    both = noisy(crowd, rate=0.2, missed=0.0, jitter_px=2.0).label([4])
    only_boxes = noisy(crowd, rate=0.0, missed=0.0, jitter_px=2.0).label([4])
    assert both.boxes_px[0].tolist() == only_boxes.boxes_px[0].tolist()


def test_oracles_by_name(crowd):
    archive = get_field_oracle("archive", crowd, OPEN_SET, seconds_per_image=1.0, seconds_per_class=0.0)
    assert isinstance(archive, FieldOracle)
    assert archive.time == AnnotationTime(seconds_per_image=1.0, seconds_per_class=0.0)
    assert archive.label([0]).cost_boxes.tolist() == [20.0]
    options = {"rate": 0.2, "missed": 0.3, "jitter_px": 1.0}
    by_name = get_field_oracle("noisy", crowd, OPEN_SET, seed=5, options=options)
    assert isinstance(by_name, FieldOracle)
    assert by_name.label([0]).answers == noisy(crowd, seed=5, **options).label([0]).answers


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("best", {}, "no oracle for fields of view is called 'best'; choose one of \\['archive', 'noisy'\\]"),
        ("archive", {"rate": 0.1}, "the oracle 'archive' has no option \\['rate'\\]; it has none"),
        ("noisy", {"jitter": 1}, "the oracle 'noisy' has no option \\['jitter'\\]; it has \\['confusion', 'jitter_px'"),
        ("noisy", {"rate": 1.1}, "the noise rate must lie in 0..1, but is 1.1"),
        ("noisy", {"missed": 1.0}, "missed must lie in \\[0, 1\\), but is 1.0"),
        ("noisy", {"jitter_px": -1.0}, "jitter_px must be 0 or more, but is -1.0"),
        (
            "noisy",
            {"confusion": [[1, 0], [0, 1]]},
            "confusion must be 3 x 3 chances \\(the known classes, then unknown",
        ),
        ("noisy", {"confusion": [[0.5, 0, 0], [0, 1, 0], [0, 0, 1]]}, "each row of confusion must sum to 1"),
    ],
)
def test_wrong_options(table, name, options, message):
    with pytest.raises(ConfigError, match=message):
        get_field_oracle(name, table, OPEN_SET, options=options)
