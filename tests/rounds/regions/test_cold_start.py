# SPDX-License-Identifier: Apache-2.0
import logging
from collections import Counter

import numpy as np
import pytest

from tests.inference.colour_slides import break_tile, slide_pixels, write_slide
from tests.rounds.regions.colour_site import make_slides, tissue_site
from tral_monai.errors import PoolError
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.cold_start import coverage, descriptors
from tral_monai.rounds.regions.region import Region
from tral_monai.slides import open_slide


def colour(region, pattern, cell_px=128):
    """The cell in which a region of one cell lies."""
    return pattern[region.y_level0 // cell_px][region.x_level0 // cell_px]


# Regions of one cell: 40 Stroma, 18 Muscle, 6 Blood, and one of a colour that nothing else has.
PATTERN = ("SSSSSMMM", "SSSSSMMM", "SSSSSMMM", "SSSSSMMM", "SSSSSMMM", "SSSSSMMM", "SSSSSBBB", "SSSSDBBB")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    studies = tmp_path_factory.mktemp("studies")
    write_slide(studies / "a.tif", slide_pixels(PATTERN))
    return tissue_site(studies, tissue_region_um=32.0, val_fraction=0.0)


def choose(task, n, *, seed=0, **options):
    candidates = candidate_regions(task)
    return coverage(task, candidates, n, np.random.default_rng(seed), **{"purpose": "train", **options})


def test_all_kinds_of_tissue_are_covered(task):
    kinds = Counter(colour(row.region, PATTERN) for row in choose(task, 6).rows)
    assert {"S", "M", "B"} <= set(kinds)
    assert kinds["S"] >= kinds["B"]


def test_an_outlier_is_not_among_the_first(task):
    for seed in range(3):
        assert "D" not in {colour(row.region, PATTERN) for row in choose(task, 3, seed=seed).rows}


def test_regions_spread_over_the_slide(task):
    # Three of equal colour alone would be neighbours by chance; six cover both halves of the stroma.
    rows = [row.region.y_level0 for row in choose(task, 8).rows if colour(row.region, PATTERN) == "S"]
    assert min(rows) < 4 * 128 <= max(rows)


def test_the_same_seed_chooses_the_same(task):
    assert choose(task, 8).rows == choose(task, 8).rows
    assert choose(task, 8).rows != choose(task, 8, seed=1).rows


def test_no_more_than_there_are(task):
    found = choose(task, 999)
    assert len({row.region for row in found.rows}) == 64


def test_reasons(task):
    first, second = choose(task, 2).rows
    assert first.reason == (
        "first round: region 1 of 2 that cover the tissue of a.tif, typical of what looks alike there"
    )
    assert second.reason.startswith("first round: region 2 of 2 that cover the tissue of a.tif")
    assert (first.purpose, first.class_asked) == ("train", None)
    (row,) = choose(task, 1, purpose="val").rows
    assert row.reason == "held out: region 1 of 1 on a.tif that measure the model, never trained on"
    assert row.purpose == "val"
    assert choose(task, 1, why="there is no model").rows[0].reason.startswith("there is no model: region 1 of 1")


def test_what_is_known_already_is_not_asked_again(task):
    known = [Region("a.tif", x * 128, y * 128, 128, 128) for x in range(5) for y in range(7)]  # the stroma
    candidates = candidate_regions(task)
    found = coverage(task, candidates, 2, np.random.default_rng(0), purpose="train", known=known)
    assert {colour(row.region, PATTERN) for row in found.rows} <= {"M", "B"}


def test_all_that_was_looked_at_has_a_score(task):
    pool = choose(task, 2).pool
    assert len(pool) == 64
    by_place = pool.set_index(["x_level0", "y_level0"])["score"]
    # The odd one in its corner is less typical than most, stroma amid stroma more.
    assert by_place[4 * 128, 7 * 128] < by_place.median() < by_place[2 * 128, 3 * 128]


def test_slides_take_turns_and_patients_before_slides(tmp_path):
    studies = make_slides(tmp_path / "studies", ("a", "b", "c"), held_out="")
    (studies / "slides.csv").write_text("slide,patient,split\na,P,train\nb,P,train\nc,Q,train\n")
    task = tissue_site(studies)
    for seed in range(4):
        slides = [row.region.slide for row in choose(task, 6, seed=seed).rows]
        assert sorted(slides[:3]) == sorted(slides[3:]) == ["a.tif", "b.tif", "c.tif"]
        assert "c.tif" in slides[:2]
        assert len({row.region for row in choose(task, 6, seed=seed).rows}) == 6


def test_a_slide_that_breaks_leaves_its_share_to_others(tmp_path, caplog):
    task = tissue_site(make_slides(tmp_path / "studies", ("a", "b"), held_out=""))
    candidates = candidate_regions(task)
    break_tile(task.site.studies / "b.tif", level=0, tile=0)
    break_tile(task.site.studies / "b.tif", level=1, tile=0)
    break_tile(task.site.studies / "b.tif", level=2, tile=0)
    with caplog.at_level(logging.WARNING):
        rows = coverage(task, candidates, 4, np.random.default_rng(0), purpose="train").rows
    assert [row.region.slide for row in rows] == ["a.tif"] * 4
    assert "12 regions of b.tif are left out" in caplog.text


def test_no_slide_can_be_read(tmp_path):
    task = tissue_site(make_slides(tmp_path / "studies", ("a",), held_out=""))
    candidates = candidate_regions(task)
    (task.site.studies / "a.tif").unlink()
    with pytest.raises(PoolError, match="no slide with open regions could be read"):
        coverage(task, candidates, 4, np.random.default_rng(0), purpose="train")


def test_descriptors_of_plain_colours(tmp_path):
    path = write_slide(tmp_path / "s.tif", slide_pixels(("SB",)))
    with open_slide(path) as slide:
        stroma, border = descriptors(slide, [[0, 0, 128, 128], [64, 0, 128, 128]])
    density = [-np.log10((value + 1) / 256) for value in (228, 140, 190)]
    np.testing.assert_allclose(stroma[:3], density, atol=0.02)
    np.testing.assert_allclose(stroma[3:6], 0, atol=0.02)
    np.testing.assert_allclose(stroma[6:8], np.mean(density), atol=0.03)
    assert stroma[8] < 0.01
    # Half stroma, half blood: density runs between the two, half their distance from the mean.
    blood = [-np.log10((value + 1) / 256) for value in (140, 30, 40)]
    np.testing.assert_allclose(border[:3], np.add(density, blood) / 2, atol=0.03)
    np.testing.assert_allclose(border[3:6], np.subtract(blood, density) / 2, atol=0.03)
    assert border[8] > stroma[8]
