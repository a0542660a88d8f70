# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.annotations.rasterise import fill_polygons


def filled(polygons, shape=(12, 12), pitch=1.0, origin=(0, 0)):
    mask = np.zeros(shape, bool)
    fill_polygons(mask, polygons, pitch=pitch, origin=origin)
    return mask


def centres_inside(polygon, shape, pitch, origin):
    rows, columns = np.indices(shape)
    return shapely.contains_xy(polygon, (origin[0] + columns + 0.5) * pitch, (origin[1] + rows + 0.5) * pitch)


def test_a_box_by_hand():
    # Centres 1.5 and 2.5 lie in (1.2, 2.9); so does row 0.5 in (0.4, 0.6) but not in (0.6, 1.4).
    assert np.argwhere(filled([shapely.box(1.2, 0.4, 2.9, 0.6)])).tolist() == [[0, 1], [0, 2]]
    assert not filled([shapely.box(1.2, 0.6, 2.9, 1.4)]).any()


def test_holes_and_parts():
    ring = shapely.Polygon(shapely.box(0, 0, 10, 10).exterior, [shapely.box(2, 2, 8, 8).exterior])
    both = filled([shapely.MultiPolygon([ring, shapely.box(4, 4, 6, 6)])])
    assert both.sum() == 100 - 36 + 4
    assert both[5, 5]
    assert not both[3, 3]


def test_several_polygons_are_joined():
    assert filled([shapely.box(0, 0, 4, 4), shapely.box(2, 0, 6, 4)]).sum() == 24


def test_neighbours_that_share_an_edge_through_centres_share_no_pixel():
    left, right = shapely.box(0, 0, 4.5, 12), shapely.box(4.5, 0, 12, 12)
    above, below = shapely.box(0, 0, 12, 4.5), shapely.box(0, 4.5, 12, 12)
    for one, other in ((left, right), (above, below)):
        assert (filled([one]).astype(int) + filled([other])).tolist() == np.ones((12, 12), int).tolist()


@settings(max_examples=150, deadline=None)
@given(
    angles=st.lists(st.floats(0, 6.28), min_size=3, max_size=25, unique=True),
    seed=st.integers(0, 2**32 - 1),
    pitch=st.sampled_from([1.0, 3.7]),
    origin=st.sampled_from([(0, 0), (-4, 7), (5, -3)]),
    with_hole=st.booleans(),
)
def test_a_pixel_belongs_to_a_polygon_if_its_centre_lies_inside(angles, seed, pitch, origin, with_hole):
    generator = np.random.default_rng(seed)
    angle = np.sort(angles)
    centre, radius = generator.uniform(0, 40, 2), generator.uniform(2, 60, len(angle))
    points = centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    polygon = shapely.make_valid(shapely.Polygon(points))
    if with_hole:
        polygon = polygon.difference(shapely.Point(centre).buffer(generator.uniform(1, 30)))
    polygons = [part for part in shapely.get_parts(polygon) if isinstance(part, shapely.Polygon) and part.area > 0]
    expected = np.zeros((23, 31), bool)
    for part in polygons:
        expected |= centres_inside(part, expected.shape, pitch, origin)
    np.testing.assert_array_equal(filled(polygons, expected.shape, pitch, origin), expected)


@pytest.mark.parametrize("box", [(-9, -9, -1, 30), (13, 2, 20, 4), (2, -8, 4, -2), (2, 12.1, 4, 14)])
def test_what_lies_beside_the_mask_sets_nothing(box):
    assert not filled([shapely.box(*box)]).any()


def test_the_mask_clips():
    assert filled([shapely.box(-100, -100, 100, 100)]).all()
