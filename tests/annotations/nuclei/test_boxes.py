# SPDX-License-Identifier: Apache-2.0
import numpy as np

from tral_monai.annotations.nuclei.boxes import fit_boxes, unnamed_class_problem

NAN = float("nan")


def test_boxes_are_clipped_moved_and_left_out_by_name():
    boxes = [
        [12, 22, 20, 30],   # inside: moved by (10, 20)
        [5, 15, 14, 26],    # over the left upper corner: clipped
        [0, 0, 9, 9],       # beyond
        [60, 20, 70, 30],   # touches the right edge only: beyond
        [15, 25, 15, 30],   # no width
        [15, 30, 20, 25],   # upside down
        [NAN, 25, 30, 40],
    ]  # fmt: skip
    fitted = fit_boxes(boxes, list("abcdefg"), [True] + [False] * 6, name="f1", area_px=(10, 20, 60, 80))
    assert fitted.boxes_px.tolist() == [[2, 2, 10, 10], [0, 0, 4, 6]]
    assert fitted.boxes_px.dtype == np.float32
    assert fitted.classes == ("a", "b")
    assert fitted.ignored.tolist() == [True, False]
    assert fitted.problems == (
        "f1: 1 box with NaN or infinity left out",
        "f1: 2 boxes of no area left out",
        "f1: 2 boxes outside the annotated area left out",
        "f1: 1 box partly outside the annotated area clipped",
    )


def test_cut_nuclei_may_be_expected_and_slivers_are_ignored():
    # 40 % and 60 % of the boxes are left of column 0; the third is ignored anyway.
    fitted = fit_boxes(
        [[-4, 0, 6, 10], [-6, 0, 4, 10], [0, 0, 5, 5]],
        ["a", "b", "c"],
        [False, False, True],
        name="f",
        area_px=(0, 0, 50, 50),
        cut_is_expected=True,
        min_visible=0.5,
    )
    assert fitted.ignored.tolist() == [False, True, True]
    assert fitted.problems == ()


def test_far_out_on_a_slide_nothing_is_rounded():
    # 100,000.25 is not a float32 to a quarter of a pixel; relative to the area it is.
    fitted = fit_boxes(
        [[1e7 + 0.25, 1e7 + 0.25, 1e7 + 9.5, 1e7 + 8]], ["a"], [False], name="f", area_px=(1e7, 1e7, 1e7 + 64, 1e7 + 64)
    )
    assert fitted.boxes_px.tolist() == [[0.25, 0.25, 9.5, 8.0]]


def test_no_boxes_give_no_boxes():
    fitted = fit_boxes([], [], [], name="f", area_px=(0, 0, 5, 5))
    assert fitted.boxes_px.shape == (0, 4)
    assert (fitted.classes, fitted.problems) == ((), ())


def test_a_class_that_the_map_lacks_is_named():
    assert unnamed_class_problem("f", {}, ["a"]) == ()
    assert unnamed_class_problem("f", {"z": 3, "y": 1}, ["a", "b"]) == (
        "f: class 'y' (1 nuclei), 'z' (3 nuclei) is not one of a, b; these nuclei are ignored",
    )
