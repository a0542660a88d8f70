# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import shapely

from tral_monai.annotations.model import Annotation
from tral_monai.rounds.regions.region_shapes import inner_rectangle, looked_at

SQUARE = shapely.box(0, 0, 10, 10)
OPEN = {"metadata": {"tral_monai": "open"}}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotation(SQUARE, "Region"), True),
        (Annotation(SQUARE, " region* "), True),
        (Annotation(SQUARE, "Tumor", name="FIELD"), True),
        (Annotation(SQUARE, "Regional"), None),
        (Annotation(SQUARE), None),
        (Annotation(SQUARE, "Region", object_type="detection"), None),
        (Annotation(SQUARE, "Region", properties={"metadata": {"tral_monai": "closed"}}), True),
        (Annotation(SQUARE, "Region", properties=OPEN), False),
        (Annotation(SQUARE, "Empty", properties=OPEN), True),
        (Annotation(SQUARE, "Empty"), None),
        (Annotation(SQUARE, None, name="Done", properties=OPEN), True),
    ],
)
def test_which_shapes_are_regions_and_which_were_looked_at(annotation: Annotation, expected: bool | None) -> None:
    assert looked_at(annotation) is expected


def test_a_rectangle_stands_for_itself_in_whole_pixels() -> None:
    assert inner_rectangle(shapely.box(0.4, 1.6, 10.4, 21.6)) == ((0, 2, 10, 20), True)


def test_of_a_circle_a_square_fits_in() -> None:
    (x, y, width, height), whole = inner_rectangle(shapely.Point(500, 500).buffer(400, quad_segs=64))
    assert not whole
    assert width * height == pytest.approx(2 * 400**2, rel=0.05)  # the square has a diagonal of 800
    assert (x + width / 2, y + height / 2) == (pytest.approx(500, abs=10), pytest.approx(500, abs=10))


def test_into_a_sliver_nothing_fits() -> None:
    (_, _, width, height), whole = inner_rectangle(shapely.Polygon([(0, 0), (1000, 999), (1000, 1000)]))
    assert (width * height, whole) == (0, False)
