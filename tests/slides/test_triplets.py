# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import pickle
import tracemalloc

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.cucim_backend import cucim_unavailable
from tral_monai.slides.slide import open_slide
from tral_monai.slides.tiff_backend import TiffBackend
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.triplets import TripletReader, triplets_to_tensor_layout


def naive(path, centres, factors=(1, 4, 16), tile_px=128):
    """Read each tile with one call of OpenSlide, transparency on white."""
    out = np.empty((len(centres), len(factors), tile_px, tile_px, 3), np.uint8)
    with openslide.OpenSlide(path) as slide:
        for i, (x, y) in enumerate(np.asarray(centres).tolist()):
            for level, factor in enumerate(factors):
                start = [((2 * position + factor) // (2 * factor) - tile_px // 2) * factor for position in (x, y)]
                rgba = slide.read_region(start, level, (tile_px, tile_px))
                canvas = Image.new("RGB", rgba.size, "white")
                canvas.paste(rgba, mask=rgba.getchannel("A"))
                out[i, level] = np.asarray(canvas)
    return out


def grid(width, height, step):
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    return np.column_stack((x.ravel(), y.ravel()))


@pytest.mark.parametrize("backend", ["tiff", "openslide", "cucim"])
def test_as_the_naive_reading_to_the_bit(tmp_path, write_tiff, make_texture, make_levels, backend):
    if backend == "cucim" and cucim_unavailable():
        pytest.skip(f"cuCIM cannot be used: {cucim_unavailable()}")
    # Multiples of 16, because OpenSlide blends pixels at levels whose factor is no integer, but not of a tile.
    path = write_tiff(tmp_path / "a.tif", make_levels(make_texture(1488, 1104)))
    centres = np.vstack((grid(1488, 1104, 128), np.random.default_rng(0).integers(-300, 1800, (60, 2))))
    read = TripletReader(open_slide(path, backend)).read(centres)
    assert read.shape == (len(centres), 3, 128, 128, 3)
    assert read.dtype == np.uint8
    assert (read == naive(path, centres)).all()


@pytest.fixture(scope="module")
def reader(small_slide):
    return TripletReader(open_slide(small_slide))


@pytest.fixture(scope="module")
def pixels_by_level(small_slide):
    slide = open_slide(small_slide)
    return [slide.read((0, 0), size, level=level) for level, size in enumerate(slide.level_dimensions)]


coordinate = st.one_of(
    st.integers(-3000, 4500),
    st.sampled_from(
        [-65, -64, -63, 0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 1035, 1036, 1037, 1099, 1100, 1500, 1564]
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=coordinate, y=coordinate)
def test_centre_is_shared_exactly_and_the_outside_white(reader, pixels_by_level, x, y):
    triplet = reader.read([(x, y)])[0]
    for scale, (factor, level) in enumerate(zip((1, 4, 16), pixels_by_level, strict=True)):
        left, top = ((2 * position + factor) // (2 * factor) - 64 for position in (x, y))
        expected = np.full((128, 128, 3), 255, np.uint8)
        height, width = level.shape[:2]
        x0, x1, y0, y1 = max(left, 0), min(left + 128, width), max(top, 0), min(top + 128, height)
        if x0 < x1 and y0 < y1:
            expected[y0 - top : y1 - top, x0 - left : x1 - left] = level[y0:y1, x0:x1]
        assert (triplet[scale] == expected).all()


def test_centre_lies_between_the_middle_pixels(reader, small_slide):
    triplet = reader.read([(704, 512)])[0]
    slide = open_slide(small_slide)
    for scale, magnification in enumerate((40, 10, 2.5)):
        after_the_centre = slide.read((704, 512), (64, 64), magnification=magnification)
        assert (triplet[scale, 64:, 64:] == after_the_centre).all()


@pytest.mark.parametrize("mpp", [0.25, 0.2425, 0.5, 0.125])
def test_a_triplet_does_not_depend_on_its_company(small_slide, mpp):
    slide = open_slide(small_slide, mpp=mpp)
    centres = np.random.default_rng(1).integers(-100, 1600, (80, 2))
    together = TripletReader(slide).read(centres)
    shuffled = np.random.default_rng(2).permutation(80)
    assert (TripletReader(slide, block_px=300).read(centres[shuffled]) == together[shuffled]).all()
    small_cache = TripletReader(slide, cache_bytes=1)
    assert all((small_cache.read(centres[[i]])[0] == together[i]).all() for i in range(0, 80, 16))
    assert (TripletReader(slide, num_threads=3).read(centres) == together).all()


@pytest.mark.parametrize("mpp", [0.2425, 0.5, 0.125])
def test_resampled_tiles_as_the_slide_reads_them(small_slide, mpp):
    slide = open_slide(small_slide, mpp=mpp)
    for scale, magnification in enumerate((40, 10, 2.5)):
        factor = 10 / magnification / slide.mpp
        k = 3  # the pixel of the resampled grid on whose left edge the centre lies, as nearly as an integer can
        centre = round((64 + k) * factor)
        triplet = TripletReader(slide).read([(centre, centre)])[0]
        start = np.floor(centre / factor + 0.5) - 64
        direct = slide.read((start * factor, start * factor), (128, 128), magnification=magnification)
        assert (triplet[scale] == direct).all()


@pytest.fixture
def decoded(monkeypatch):
    """The (level, column, row) of every tile that is decoded from here on."""
    found = []
    read_tile = TiffBackend.read_tile

    def spy(self, level, column, row):
        found.append((level, column, row))
        return read_tile(self, level, column, row)

    monkeypatch.setattr(TiffBackend, "read_tile", spy)
    return found


def test_every_tile_of_the_file_is_decoded_once(decoded, small_slide):
    centres = grid(1500, 1100, 128)
    TripletReader(open_slide(small_slide)).read(centres)
    # 1500 x 1100 in tiles of 256: 6 x 5; the coarser levels 2 x 2 and 1 x 1.
    assert len(decoded) == len(set(decoded)) == 30 + 4 + 1
    decoded.clear()
    for _ in TripletReader(open_slide(small_slide)).iter_blocks(centres, 24):  # two rows of the grid at a time
        pass
    assert len(decoded) == len(set(decoded)) == 35


def test_scattered_requests_are_served_from_the_cache(decoded, small_slide):
    reader = TripletReader(open_slide(small_slide))
    centres = np.random.default_rng(7).integers(0, 1100, (20, 2))
    for centre in np.vstack((centres, centres[::-1])):
        reader.read([centre])
    assert len(decoded) == len(set(decoded))


def test_readers_share_a_cache(tmp_path, decoded, small_slide, write_tiff, make_texture):
    other = write_tiff(tmp_path / "other.tif", [make_texture(700, 600, seed=9)])
    cache = TileCache(64 << 20)
    first, second, third = (TripletReader(open_slide(path), cache=cache) for path in (small_slide, other, small_slide))
    expected = first.read([(300, 300)])
    assert (second.read([(300, 300)]) != expected).any()
    decoded.clear()
    assert (third.read([(300, 300)]) == expected).all()
    assert decoded == []


def test_few_tiles_are_decoded_for_few_triplets(decoded, small_slide):
    TripletReader(open_slide(small_slide)).read([(128, 128), (1408, 1000)])
    # At level 0 the first lies inside of tile (0, 0), the second on columns 5, rows 3 and 4.
    assert {at for at in decoded if at[0] == 0} == {(0, 0, 0), (0, 5, 3), (0, 5, 4)}


@pytest.mark.parametrize("max_triplets", [1, 7, 1000])
def test_blocks_hold_every_triplet_once(small_slide, max_triplets):
    slide = open_slide(small_slide)
    centres = np.random.default_rng(5).integers(0, 1100, (50, 2))
    whole = TripletReader(slide).read(centres)
    seen = []
    for indices, triplets in TripletReader(slide, block_px=256).iter_blocks(centres, max_triplets):
        assert len(indices) == len(triplets) <= max_triplets
        assert (triplets == whole[indices]).all()
        seen.extend(indices.tolist())
    assert sorted(seen) == list(range(50))


def test_order_of_blocks_is_block_by_block(small_slide):
    centres = [(10, 10), (600, 10), (20, 10), (10, 600), (600, 20)]
    reader = TripletReader(open_slide(small_slide), block_px=512)
    order = [int(indices[0]) for indices, _ in reader.iter_blocks(centres, 1)]
    assert order == [0, 2, 1, 4, 3]


def test_memory_does_not_grow_with_the_number_of_triplets(small_slide):
    def peak_of(count):
        centres = np.random.default_rng(0).integers(0, 1100, (count, 2))
        reader = TripletReader(open_slide(small_slide), cache_bytes=4 << 20)
        reader.read(centres[:2])
        tracemalloc.start()
        for _indices, _triplets in reader.iter_blocks(centres, 32):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    step = 32 * 3 * 128 * 128 * 3  # bytes of one step's pixels; two are alive while one replaces the other
    bound = (4 << 20) + 2 * step + (2 << 20)
    assert step < peak_of(64) < bound
    assert step < peak_of(640) < bound


def test_other_magnifications_and_sizes(small_slide):
    slide = open_slide(small_slide)
    read = TripletReader(slide, magnifications=(10.0, 20.0), tile_px=64).read([(500, 400)])
    assert read.shape == (1, 2, 64, 64, 3)
    assert (read[0, 0] == slide.read(((125 - 32) * 4, (100 - 32) * 4), (64, 64), level=1)).all()
    assert (read[0, 1] == slide.read((500 - 64, 400 - 64), (64, 64), magnification=20.0)).all()


def test_empty_request(reader):
    assert reader.read(np.empty((0, 2), np.int64)).shape == (0, 3, 128, 128, 3)
    assert reader.read([]).shape == (0, 3, 128, 128, 3)
    assert list(reader.iter_blocks([], 5)) == []


@pytest.mark.parametrize("centres", [[(1.5, 2.0)], [1, 2], [(1, 2, 3)]])
def test_centres_must_be_integer_pairs(reader, centres):
    with pytest.raises(SlideReadError, match=r"small\.tif: centres must be integers \(n, 2\)"):
        reader.read(centres)


@pytest.mark.parametrize("setting", ["tile_px", "block_px", "cache_bytes", "num_threads"])
def test_settings_must_be_positive(small_slide, setting):
    with pytest.raises(ConfigError, match=rf"{setting} must be at least 1, got 0"):
        TripletReader(open_slide(small_slide), **{setting: 0})


def test_other_arguments(small_slide, reader):
    with pytest.raises(ConfigError, match="magnifications must hold at least one"):
        TripletReader(open_slide(small_slide), magnifications=())
    with pytest.raises(ConfigError, match="max_triplets must be at least 1, got 0"):
        next(reader.iter_blocks([(1, 1)], 0))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_tile_that_failed_is_not_taken_for_good_later(tmp_path, small_slide, num_threads):
    with tifffile.TiffFile(small_slide) as tiff:
        page = tiff.pages[0]
        position, count = page.dataoffsets[7], page.databytecounts[7]  # column 1, row 1 of 6 columns
    data = bytearray(small_slide.read_bytes())
    data[position : position + count] = bytes(count)
    path = tmp_path / "bad.tif"
    path.write_bytes(data)
    reader = TripletReader(open_slide(path), num_threads=num_threads)
    for _ in range(2):
        with pytest.raises(SlideReadError, match=r"bad\.tif: tile at level 0, column 1, row 1 \(x 256, y 256"):
            reader.read([(300, 300), (900, 900), (1400, 100)])
    good = [(900, 900), (1400, 100)]
    assert (reader.read(good)[:, 0] == naive(small_slide, good)[:, 0]).all()


def test_closed_slide(small_slide):
    slide = open_slide(small_slide)
    reader = TripletReader(slide)
    reader.read([(500, 500)])
    slide.close()
    with pytest.raises(SlideReadError, match="the slide is closed"):
        reader.read([(500, 500)])


READERS = {}


def _read_in_child(job):
    reader, centres = job
    return (reader or READERS["inherited"]).read(centres)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_pickled_and_inherited_by_a_fork(small_slide, backend):
    reader = TripletReader(open_slide(small_slide, backend), num_threads=2)
    centres = grid(1500, 1100, 256)
    expected = reader.read(centres)
    assert (pickle.loads(pickle.dumps(reader)).read(centres) == expected).all()
    READERS["inherited"] = reader
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_read_in_child, [(reader, centres), (None, centres)] * 3)
    assert all((triplets == expected).all() for triplets in found)


def test_tensor_layout():
    triplets = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 3, 4, 5, 3)
    layout = triplets_to_tensor_layout(triplets)
    assert layout.shape == (2, 9, 4, 5)
    assert layout.flags.c_contiguous
    for scale in range(3):
        for colour in range(3):
            assert (layout[:, 3 * scale + colour] == triplets[:, scale, :, :, colour]).all()


def test_real_slide_as_the_naive_reading_to_the_bit(tral_data):
    path = tral_data / "slides" / "colon_polyp_lower.tif"
    centres = np.random.default_rng(0).integers(0, (9984, 16128), (40, 2))
    read = TripletReader(open_slide(path, mpp=0.25)).read(centres)
    through_openslide = TripletReader(open_slide(path, "openslide", mpp=0.25))
    assert (read == through_openslide.read(centres)).all()
