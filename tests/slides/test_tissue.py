# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.inference.damaged_slides import break_tile
from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.slide import open_slide
from tral_monai.slides.tissue import TissueMask, _glass_colour, tissue_mask

GLASS = (244, 244, 246)
STROMA, NUCLEI, FAT, GREEN_INK, BLACK_PEN = (
    (222, 150, 190),
    (120, 80, 150),
    (232, 216, 231),
    (40, 150, 110),
    (30, 30, 32),
)


@pytest.fixture
def slide_of(tmp_path, make_texture):
    """Return a function that makes a slide at 8 um per pixel from flat regions with a scanner's noise on top."""

    def make(size, regions, *, glass=GLASS, noise=3.0):
        pixels = np.full((size[1], size[0], 3), glass, np.float64)
        for (x0, y0, x1, y1), colour in regions:
            pixels[y0:y1, x0:x1] = colour
        pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
        path = tmp_path / "slide.png"
        Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8)).save(path)
        return open_slide(path, mpp=8.0)

    return make


def box(shape, x0, y0, x1, y1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def agreement(found, expected):
    return (found & expected).sum() / (found | expected).sum()


@pytest.mark.parametrize("glass", [(255, 255, 255), GLASS, (236, 233, 238), (215, 214, 216)])
@pytest.mark.parametrize("colour", [STROMA, NUCLEI])
def test_tissue_on_any_glass(slide_of, glass, colour):
    slide = slide_of((200, 150), [((50, 40, 120, 100), colour)], glass=glass)
    found = tissue_mask(slide)
    assert (found.mpp, found.downsample_level0) == (8.0, 1.0)
    assert agreement(found.mask, box((150, 200), 50, 40, 120, 100)) > 0.95


def test_pale_fat_is_tissue(slide_of):
    slide = slide_of((200, 150), [((50, 40, 120, 100), FAT)])
    assert agreement(tissue_mask(slide).mask, box((150, 200), 50, 40, 120, 100)) > 0.95


@pytest.mark.parametrize("glass", [(255, 255, 255), GLASS, (215, 214, 216)])
@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_glass_alone_gives_an_empty_mask(slide_of, glass, noise):
    assert not tissue_mask(slide_of((200, 150), [], glass=glass, noise=noise)).mask.any()


def test_fields_of_glass_and_unscanned_white_are_no_tissue(slide_of):
    regions = [((0, 0, 100, 150), (255, 255, 255)), ((150, 0, 200, 150), (236, 236, 238))]
    assert not tissue_mask(slide_of((200, 150), regions, noise=0)).mask.any()


def test_slide_without_glass_gives_a_full_mask(slide_of):
    slide = slide_of((200, 150), [((0, 0, 200, 150), STROMA), ((50, 40, 90, 80), NUCLEI)])
    assert tissue_mask(slide).mask.all()


def test_ink_counts_only_where_it_touches_tissue(slide_of):
    tissue, inked, mark = (50, 40, 120, 100), (112, 40, 120, 100), (150, 20, 180, 130)
    slide = slide_of((200, 150), [(tissue, STROMA), (inked, GREEN_INK), (mark, GREEN_INK)])
    found = tissue_mask(slide).mask
    assert agreement(found, box((150, 200), *tissue)) > 0.9
    assert found[50:90, 113:119].mean() > 0.9
    assert not found[:, 150:].any()


def test_black_pen_and_shadow_are_no_tissue(slide_of):
    slide = slide_of((200, 150), [((20, 20, 60, 130), BLACK_PEN), ((100, 20, 160, 130), (200, 200, 201))], noise=1)
    assert not tissue_mask(slide).mask.any()


def test_small_pieces_and_holes_by_their_area(slide_of):
    # At 8 um per pixel: a piece of 5 x 5 px has 1,600 um2, the hole of 20 x 20 px 25,600 um2.
    regions = [((40, 30, 120, 110), STROMA), ((70, 60, 90, 80), GLASS), ((160, 70, 165, 75), NUCLEI)]
    slide = slide_of((200, 150), regions)
    default = tissue_mask(slide).mask
    assert default[70, 80]
    assert not default[:, 150:].any()
    everything = tissue_mask(slide, min_object_um2=1_000, max_hole_um2=20_000).mask
    assert not everything[70, 80]
    assert everything[72, 162]


def test_paper_rule_is_green_at_most_250_closed_with_four_by_four(tmp_path):
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:20, 10:20, 1] = 250
    pixels[10:20, 22:30, 1] = 100  # a gap of two columns: closed
    pixels[10:20, 40:50, 1] = 100  # a gap of ten columns: open
    pixels[30:35, 10:20, 1] = 251  # glass
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    found = tissue_mask(open_slide(path, mpp=8.0), method="paper").mask
    expected = box((40, 60), 10, 10, 30, 20) | box((40, 60), 40, 10, 50, 20)
    assert (found == expected).all()


def test_mask_of_a_pyramid_is_read_at_the_resolution_asked_for(small_slide):
    found = tissue_mask(open_slide(small_slide), mpp=4.0)
    assert found.mask.shape == (69, 94)  # 1100 / 16, 1500 / 16, rounded up
    assert (found.mpp, found.downsample_level0) == (pytest.approx(4.0), 16.0)
    coarse = tissue_mask(open_slide(small_slide))
    assert coarse.mask.shape == (35, 47)
    assert coarse.downsample_level0 == pytest.approx(32)


def test_a_region_that_cannot_be_decoded_is_looked_at_and_the_rest_is_as_it_was(tmp_path, write_tiff, make_texture):
    white = np.full((64, 1024, 3), 255, np.uint8)
    pixels = np.concatenate([white, make_texture(1024, 384), white])  # glass above and below, mpp 4: 512 x 1024
    path = write_tiff(tmp_path / "a.tif", [pixels], mpp=4.0)
    whole = tissue_mask(open_slide(path), mpp=4.0)
    assert not whole.mask[:40].any()
    assert whole.unreadable == ()
    break_tile(path, 0, 1)  # x 256 to 511, y 0 to 255
    with pytest.raises(SlideReadError, match=r"column 1, row 0 .* cannot be decoded"):
        tissue_mask(open_slide(path), mpp=4.0)
    found = tissue_mask(open_slide(path), mpp=4.0, tolerant=True)
    assert len(found.unreadable) == 1
    assert "x 256, y 0 at level 0" in found.unreadable[0]
    assert found.mask[:256, 256:512].all()
    # Beside it the mask differs by no more than its smoothing and closing reach.
    near = np.zeros_like(whole.mask)
    near[: 256 + 10, 256 - 10 : 512 + 10] = True
    assert (found.mask == whole.mask)[~near].all()


def test_a_broken_tile_of_a_level_that_is_resampled_costs_itself_only(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(1024, 512)], mpp=4.0)
    break_tile(path, 0, 1)  # x 256 to 511, y 0 to 255: at 8 um 128 to 255 and 0 to 127, and one pixel around
    found = tissue_mask(open_slide(path), mpp=8.0, tolerant=True, method="paper")
    assert found.mask.shape == (256, 512)
    assert len(found.unreadable) == 1
    assert found.mask[:129, 127:257].all()
    good = tissue_mask(open_slide(write_tiff(tmp_path / "b.tif", [make_texture(1024, 512)], mpp=4.0)), method="paper")
    near = np.zeros_like(good.mask)
    near[: 129 + 4, 127 - 4 : 257 + 4] = True  # closed with a square of four
    assert (found.mask == good.mask)[~near].all()


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_slide_of_which_nothing_can_be_decoded(tmp_path, write_tiff, make_texture, tolerant):
    path = write_tiff(tmp_path / "a.tif", [make_texture(512, 256)], mpp=4.0)
    for tile in range(2):
        break_tile(path, 0, tile)
    with pytest.raises(SlideReadError, match=r"column 0, row 0 .* cannot be decoded"):
        tissue_mask(open_slide(path), mpp=4.0, tolerant=tolerant)


def test_coverage_is_the_exact_area():
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True  # level-0 pixels x 20 to 50, y 10 to 30
    tissue = TissueMask(mask, mpp=2.5, downsample_level0=10.0)
    centres = [(35, 20), (20, 10), (25, 20), (5, 5), (0, 0), (55, 20), (-500, 20)]
    # Squares of 10: inside; a quarter; inside at the left edge; outside; outside; x 50 to 60: outside; far outside.
    assert tissue.coverage(centres, 10.0) == pytest.approx([1, 0.25, 1, 0, 0, 0, 0])
    assert tissue.coverage([(35, 20)], 60.0) == pytest.approx([600 / 3600])
    assert tissue.coverage([(23, 20)], 8.0) == pytest.approx([7 / 8])
    assert tissue.coverage(np.empty((0, 2)), 10.0).shape == (0,)


@pytest.mark.parametrize("mpp", [8.0, 3.0])
def test_strips_give_what_the_whole_picture_gives(slide_of, monkeypatch, mpp):
    rng = np.random.default_rng(1)
    spots = [((x, y, x + w, y + h), STROMA) for x, y, w, h in rng.integers((0, 0, 3, 3), (380, 560, 25, 25), (90, 4))]
    strokes = [((x, y, x + 4, y + 40), GREEN_INK) for x, y in rng.integers(0, (380, 560), (40, 2))]
    path = slide_of((400, 600), spots + strokes, noise=6.0).path
    masks = []
    for strip_px in (1 << 40, 1):
        monkeypatch.setattr("tral_monai.slides.tissue._STRIP_PX", strip_px)
        masks.append(tissue_mask(open_slide(path, mpp=mpp), mpp=mpp, min_object_um2=500, max_hole_um2=2000).mask)
    assert 0.05 < masks[0].mean() < 0.9
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("white", [0, 4500, 8950])
def test_the_colour_of_glass_is_the_median_around_the_commonest_green(white):
    image = np.random.default_rng(2).normal((241, 238, 240), 2, (100, 90, 3)).round().astype(np.uint8)
    image.reshape(-1, 3)[:white] = 255
    scanned = image.reshape(-1, 3)[white:]
    scanned = scanned[(scanned.min(axis=1) > 190) & (np.ptp(scanned.astype(int), axis=1) < 12)]
    mode = np.bincount(scanned[:, 1]).argmax()
    expected = np.median(scanned[np.abs(scanned[:, 1].astype(int) - mode) <= 3], axis=0)
    # Fewer than 1 in 100 pixels that were scanned are too little to go by.
    assert _glass_colour(image).tolist() == (expected.tolist() if white < 8910 else [255, 255, 255])


def test_memory_per_pixel_of_the_mask_is_bounded(tmp_path, write_tiff, make_texture, monkeypatch):
    monkeypatch.setattr("tral_monai.slides.tissue._STRIP_PX", 1 << 14)
    peaks = []
    for side in (512, 1024):
        white = np.full((side, side // 4, 3), 250, np.uint8)
        pixels = np.concatenate([white, make_texture(side // 2, side), white], axis=1)
        with open_slide(write_tiff(tmp_path / f"{side}.tif", [pixels], mpp=8.0)) as slide:
            tracemalloc.start()
            found = tissue_mask(slide).mask
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert found.shape == (side, side)
        assert 0.3 < found.mean() < 0.7
    assert (peaks[1] - peaks[0]) / (1024**2 - 512**2) < 10  # bytes; the whole picture at once took 69


def test_coverage_takes_little_memory_and_does_not_depend_on_the_other_squares():
    rng = np.random.default_rng(3)
    tissue = TissueMask(rng.random((1500, 1000)) > 0.4, mpp=8.0, downsample_level0=31.97)
    centres = rng.integers(-500, (32_500, 48_500), (70_000, 2))
    tracemalloc.start()
    together = tissue.coverage(centres, 127.3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6  # 8 bytes per centre twice and some for the sorting, and 4 per pixel of a band of the mask
    alone = np.concatenate([tissue.coverage(centres[i : i + 1], 127.3) for i in range(0, 70_000, 700)])
    assert (together[::700] == alone).all()
    for centre, share in zip(centres[:200], together[:200], strict=True):
        low, high = (centre - 127.3 / 2) / 31.97, (centre + 127.3 / 2) / 31.97
        y, x = (np.arange(n)[:, None] for n in (1500, 1000))
        inside_y = np.clip(np.minimum(y + 1, high[1]) - np.maximum(y, low[1]), 0, None)
        inside_x = np.clip(np.minimum(x + 1, high[0]) - np.maximum(x, low[0]), 0, None)
        area = float((inside_y.T @ tissue.mask @ inside_x)[0, 0])
        assert share == pytest.approx(area * (31.97 / 127.3) ** 2, abs=1e-9)


def test_arguments(small_slide):
    slide = open_slide(small_slide)
    with pytest.raises(ConfigError, match="method must be 'auto' or 'paper', got 'otsu'"):
        tissue_mask(slide, method="otsu")
    with pytest.raises(ConfigError, match="areas must not be negative"):
        tissue_mask(slide, min_object_um2=-1)
    with pytest.raises(ConfigError, match="mpp must be a positive"):
        tissue_mask(slide, mpp=0)
    with pytest.raises(ConfigError, match="size_level0 must be positive, got 0"):
        tissue_mask(slide).coverage([(0, 0)], 0)


def test_real_polyp_against_its_given_mask(tral_data):
    slides = tral_data / "slides"
    expected = np.asarray(Image.open(slides / "colon_polyp_lower_tissue_mask.png")) > 0
    found = tissue_mask(open_slide(slides / "colon_polyp_lower.tif", mpp=0.25), mpp=4.0).mask
    assert found.shape == expected.shape
    dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert dice > 0.95  # measured 0.969; the given outline is coarse, it leaves out tissue at the edge


def test_real_small_region(tral_data):
    found = tissue_mask(open_slide(tral_data / "slides" / "cmu-1-small-region.svs")).mask
    assert 0.35 < found.mean() < 0.45  # measured 0.405; glass around a strip of skin
