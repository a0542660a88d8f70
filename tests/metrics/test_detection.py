# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError, UnknownClassError
from tral_monai.metrics.detection import (
    classes_without_nuclei,
    detection_metrics,
    mean_average_precision,
    truth_of,
)

A, B, C, D = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]
FAR = [0, 80, 10, 90]


def shifted(box, dx):
    """IoU of a 10 x 10 box with itself shifted by dx: (10 - dx) / (10 + dx)."""
    return [box[0] + dx, box[1], box[2] + dx, box[3]]


def detections(*images):
    """Images of (box, label, score)."""
    flat = [row for image in images for row in image]
    return Detections(
        offsets=np.concatenate([[0], np.cumsum([len(image) for image in images])]),
        boxes_px=np.array([row[0] for row in flat], np.float32).reshape(-1, 4),
        labels=np.array([row[1] for row in flat], np.int64),
        scores=np.array([row[2] for row in flat], np.float64),
    )


def measure(images, truth, classes=("x", "y"), **options):
    """Truth of images as (box, label)."""
    boxes = [np.array([box for box, _ in image], np.float32).reshape(-1, 4) for image in truth]
    labels = [np.array([label for _, label in image], np.int64) for image in truth]
    return detection_metrics(detections(*images), boxes, labels, classes, **options)


def test_a_perfect_detector():
    got = measure([[(A, 0, 0.9), (B, 1, 0.8)]], [[(A, 0), (B, 1)]])
    assert got == {
        "x_ap50": 1.0,
        "y_ap50": 1.0,
        "x_f1": 1.0,
        "y_f1": 1.0,
        "map50": 1.0,
        "ap50_class_agnostic": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "fp_on_unknown": 0.0,
        "fp_on_unknown_per_nucleus": pytest.approx(math.nan, nan_ok=True),
        "fp_on_unknown_all_scores": 0.0,
    }


def test_average_precision_by_hand():
    # Right, wrong, right, of three nuclei: recalls 1/3, 1/3, 2/3 at precisions 1, 1/2, 2/3. The recalls 0 to 0.33
    # (34 of 101) have precision 1, 0.34 to 0.66 (33 of them) 2/3, the rest 0.
    got = measure([[(A, 0, 0.9), (FAR, 0, 0.8), (B, 0, 0.7)]], [[(A, 0), (B, 0), (C, 0)]], ["x"])
    assert got["x_ap50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert got["precision"] == pytest.approx(2 / 3)
    assert got["recall"] == pytest.approx(2 / 3)
    assert got["f1"] == got["x_f1"] == pytest.approx(2 / 3)


def test_the_overlap_counts_from_one_half():
    # A third of 10 px: IoU is exactly 1/2.
    assert measure([[([0, 0, 10, 5], 0, 0.9)]], [[(A, 0)]])["x_ap50"] == 1.0
    assert measure([[(shifted(A, 4), 0, 0.9)]], [[(A, 0)]])["x_ap50"] == 0.0  # 6/14
    assert measure([[(shifted(A, 4), 0, 0.9)]], [[(A, 0)]], iou=0.4)["x_ap40"] == 1.0


def test_a_nucleus_is_found_once():
    got = measure([[(A, 0, 0.9), (shifted(A, 1), 0, 0.8)]], [[(A, 0)]], ["x"])
    assert got["precision"] == 0.5
    assert got["x_ap50"] == 1.0  # the duplicate comes after recall 1


def test_the_better_score_chooses_first_and_takes_what_it_overlaps_most():
    # The first detection overlaps both nuclei by half or more, the second only one of them.
    near = [0, 0, 10, 8]
    truth = [[(A, 0), (near, 0)]]
    got = measure([[(near, 0, 0.9), (A, 0, 0.8)]], truth, ["x"])
    assert got["recall"] == 1.0


def test_the_same_place_in_another_image_is_no_match():
    assert measure([[(A, 0, 0.9)], []], [[], [(A, 0)]], ["x"])["x_ap50"] == 0.0


@pytest.mark.parametrize(("label", "on_unknown"), [(-1, 1.0), (-2, 0.0)])
def test_a_detection_on_an_ignore_region_counts_neither_way(label, on_unknown):
    got = measure([[(B, 0, 0.9), (A, 0, 0.8)]], [[(A, 0), (B, label)]], ["x"])
    assert got["x_ap50"] == got["precision"] == got["recall"] == 1.0
    assert got["fp_on_unknown"] == on_unknown


def test_any_number_of_detections_may_lie_on_one_ignore_region():
    images = [[(B, 0, 0.9), (shifted(B, 1), 0, 0.85), (B, 1, 0.6), (B, 1, 0.1), (A, 0, 0.8)]]
    got = measure(images, [[(A, 0), (B, -1), (C, -1)]])
    assert got["x_ap50"] == 1.0
    assert got["fp_on_unknown"] == 3.0  # at a score of 0.5 or more
    assert got["fp_on_unknown_per_nucleus"] == 1.5
    assert got["fp_on_unknown_all_scores"] == 4.0
    assert measure(images, [[(A, 0), (B, -1)]], operating_score=0.86)["fp_on_unknown"] == 1.0


def test_a_nucleus_of_the_own_class_comes_before_an_ignore_region_that_is_overlapped_more():
    near = shifted(A, 2)
    got = measure([[(A, 0, 0.9)]], [[(near, 0), (A, -1)]], ["x"])
    assert (got["recall"], got["fp_on_unknown"]) == (1.0, 0.0)
    # Its nucleus is taken: the second detection falls to the unknown one, and is not wrong.
    got = measure([[(near, 0, 0.95), (A, 0, 0.9)]], [[(near, 0), (A, -1)]], ["x"])
    assert (got["precision"], got["fp_on_unknown"]) == (1.0, 1.0)


def test_of_two_ignore_regions_the_one_overlapped_more_tells():
    unknown, ignored = shifted(A, 1), shifted(A, 3)
    assert measure([[(A, 0, 0.9)]], [[(unknown, -1), (ignored, -2)]])["fp_on_unknown"] == 1.0
    assert measure([[(A, 0, 0.9)]], [[(ignored, -1), (unknown, -2)]])["fp_on_unknown"] == 0.0


def test_a_nucleus_of_another_known_class_is_a_mistake():
    got = measure([[(A, 1, 0.9)]], [[(A, 0)]])
    assert got["x_ap50"] == 0.0
    assert math.isnan(got["y_ap50"])
    assert got["precision"] == 0.0
    assert got["ap50_class_agnostic"] == 1.0


def test_a_class_without_test_nuclei_is_undefined_and_left_out_of_the_mean():
    got = measure([[(A, 0, 0.9), (FAR, 1, 0.8)]], [[(A, 0), (B, -1)]])
    assert math.isnan(got["y_ap50"])
    assert got["map50"] == 1.0
    assert got["y_f1"] == 0.0  # it was claimed, wrongly
    assert classes_without_nuclei([np.array([0, -1])], ["x", "y"]) == ["y"]
    nothing = measure([[]], [[]])
    assert math.isnan(nothing["map50"])
    assert math.isnan(nothing["ap50_class_agnostic"])
    assert math.isnan(nothing["precision"])


def test_the_mean_without_a_rare_class():
    images, truth = [[(A, 0, 0.9)]], [[(A, 0), (B, 1)]]
    got = measure(images, truth, without=["y"])
    assert (got["map50"], got["map50_without_y"]) == (0.5, 1.0)
    assert mean_average_precision(got, ["x", "y"], ["x"]) == 0.0
    assert math.isnan(mean_average_precision(got, ["x"], ["x"]))


def random_case(seed, images=12, ignored=False):
    """Crowded boxes of which detections are jittered copies with wrong classes, doubles and inventions."""
    rng = np.random.default_rng(seed)
    found, boxes, labels = [], [], []
    for _ in range(images):
        n = rng.integers(0, 40)
        corner, size = rng.uniform(0, 120, (n, 2)), rng.uniform(14, 30, (n, 2))
        true = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        kinds = rng.integers(-2 if ignored else 0, 4, n)
        boxes.append(true)
        labels.append(kinds)
        rows = []
        for box, kind in zip(true, kinds, strict=True):
            for _ in range(rng.integers(0, 3)):
                label = kind if kind >= 0 and rng.random() < 0.8 else rng.integers(0, 4)
                rows.append((box + rng.normal(0, 2.5, 4), label, round(rng.random(), 2)))  # with equal scores
        for _ in range(rng.integers(0, 10)):
            x, y = rng.uniform(0, 120, 2)
            rows.append(([x, y, x + 15, y + 15], rng.integers(0, 4), rng.random()))
        found.append(rows)
    return detections(*found), boxes, labels


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_pycocotools(seed):
    pytest.importorskip("pycocotools", reason="needs pycocotools, the public implementation to compare with")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, boxes, labels = random_case(seed)
    # Of equal scores the earlier detection comes first; taken without classes, COCO goes through an image by class.
    order = np.lexsort((found.labels, found.image_of_box))
    found = replace(found, **{name: column[order] for name, column in found.columns().items()})
    rows = [(i, b, int(k)) for i in range(len(boxes)) for b, k in zip(boxes[i], labels[i], strict=True)]

    def xywh(b):
        b = np.asarray(b, np.float64)
        return [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(boxes))],
            "categories": [{"id": k + 1} for k in range(4)],
            "annotations": [
                {
                    "id": n + 1,
                    "image_id": i + 1,
                    "category_id": k + 1,
                    "bbox": xywh(b),
                    "area": xywh(b)[2] * xywh(b)[3],
                    "iscrowd": 0,
                }
                for n, (i, b, k) in enumerate(rows)
            ],
        }
        truth.createIndex()
        results = truth.loadRes(
            [
                {"image_id": int(i) + 1, "category_id": int(k) + 1, "bbox": xywh(b), "score": float(s)}
                for i, k, b, s in zip(found.image_of_box, found.labels, found.boxes_px, found.scores, strict=True)
            ]
        )
        aps = {}
        for agnostic in (False, True):
            evaluation = COCOeval(truth, results, "bbox")
            evaluation.params.useCats = 0 if agnostic else 1
            evaluation.params.maxDets = [10000]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.iouThrs = np.array([0.5])
            evaluation.evaluate()
            evaluation.accumulate()
            aps[agnostic] = evaluation.eval["precision"][0, :, :, 0, 0].mean(axis=0)  # (recalls, classes)
    got = detection_metrics(found, boxes, labels, "abcd")
    assert [got[f"{name}_ap50"] for name in "abcd"] == pytest.approx(aps[False].tolist(), abs=1e-9)
    assert got["map50"] == pytest.approx(aps[False].mean(), abs=1e-9)
    assert 0.2 < got["map50"] < 0.9  # neither trivial nor perfect
    assert got["ap50_class_agnostic"] == pytest.approx(aps[True][0], abs=1e-9)


def test_ignore_regions_are_left_out_of_what_counts():
    # Taking away all detections that an ignore region absorbs, and the regions, leaves every AP as it was.
    found, boxes, labels = random_case(9, ignored=True)
    with_regions = detection_metrics(found, boxes, labels, "abcd")
    known = [kinds >= 0 for kinds in labels]
    without = detection_metrics(
        found,
        [b[m] for b, m in zip(boxes, known, strict=True)],
        [k[m] for k, m in zip(labels, known, strict=True)],
        "abcd",
    )
    assert all(with_regions[f"{name}_ap50"] >= without[f"{name}_ap50"] for name in "abcd")
    assert with_regions["map50"] > without["map50"] + 0.02
    assert with_regions["recall"] == without["recall"]  # a region takes nothing from a known nucleus
    assert without["fp_on_unknown_all_scores"] == 0.0 < with_regions["fp_on_unknown_all_scores"]


def test_a_test_set_of_ordinary_size_and_one_huge_image_take_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 8000, (5000, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 32], axis=1)
    pick = rng.integers(0, 5000, 20000)
    found = Detections(
        offsets=np.array([0, 20000]),
        boxes_px=boxes[pick] + rng.normal(0, 4, (20000, 4)).astype(np.float32),
        labels=rng.integers(0, 5, 20000),
        scores=rng.random(20000),
    )
    started = time.process_time()
    got = detection_metrics(found, [boxes], [rng.integers(-2, 5, 5000)], "abcde")
    assert time.process_time() - started < 20
    assert 0 < got["map50"] < 1


def test_the_truth_of_a_table():
    table = pd.DataFrame(
        {
            "boxes_px": [np.array([A, B], np.float32), np.empty((0, 4), np.float32), np.array([C, D], np.float32)],
            "classes": [("tumour", "fat"), (), ("ignored", "unknown")],
        }
    )
    boxes, labels = truth_of(table, OpenSet(("lymphocyte", "tumour"), ("fat",)))
    assert [b.tolist() for b in boxes] == [[A, B], [], [C, D]]
    assert [k.tolist() for k in labels] == [[1, -1], [], [-2, -1]]
    with pytest.raises(UnknownClassError, match="class 'fat' is neither known \\['tumour'\\] nor unknown \\[\\]"):
        truth_of(table, OpenSet(("tumour",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth_boxes": [[A], [A]]}, "detections of 1 images, but boxes of 2 and labels of 1; give one of each"),
        ({"truth_labels": [[0, 1]]}, "image 0 has 1 true boxes but 2 labels; give one per box"),
        ({"truth_labels": [[2]]}, "true labels run from 2 to 2, but must be 0 to 1, -1 \\(unknown\\) or -2 \\(ignored"),
        ({"truth_labels": [[-3]]}, "true labels run from -3 to -3"),
        ({"detections": detections([(A, 2, 0.9)])}, "detected classes run from 2 to 2, but there are 2"),
        ({"iou": 0.0}, "iou must lie above 0 and be 1 at most, but is 0.0"),
        ({"without": ["z"]}, "without names \\['z'\\], which are not among the classes \\['x', 'y'\\]"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "detections": detections([(A, 0, 0.9)]),
        "truth_boxes": [[A]],
        "truth_labels": [[0]],
        "classes": ("x", "y"),
        **change,
    }
    with pytest.raises(ConfigError, match=message):
        detection_metrics(**arguments)
