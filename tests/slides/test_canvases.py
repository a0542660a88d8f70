# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.inference.colour_slides import break_tile
from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import open_slide
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.triplets import TripletReader


def grid(width, height, step):
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    return np.column_stack((x.ravel(), y.ravel()))


def all_tiles(reader, centres):
    """The tiles of all blocks in the order of the centres, and those that failed."""
    blocks = [reader.read(centres, indices) for indices in reader.plan(centres)]
    failed = np.concatenate([block.failed for block in blocks])
    tiles = np.zeros((len(centres), len(reader.magnifications), reader.tile_px, reader.tile_px, 3), np.uint8)
    seen = np.zeros(len(centres), int)
    for block in blocks:
        tiles[block.indices] = block.tiles()
        seen[block.indices] += 1
    seen[failed] += 1
    assert (seen == 1).all()
    return tiles, sorted(failed.tolist()), blocks


@pytest.fixture(scope="module")
def slide(tmp_path_factory, write_tiff, make_texture, make_levels):
    path = write_tiff(tmp_path_factory.mktemp("slide") / "a.tif", make_levels(make_texture(1488, 1104)))
    with open_slide(path) as opened:
        yield opened


@pytest.mark.parametrize("canvas_px", [300, 512, 4096])
@pytest.mark.parametrize("mpp", [0.25, 0.2431, 0.5])  # exact levels, all resampled, 40x enlarged
@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_the_pixels_of_the_triplet_reader_to_the_bit(slide, backend, mpp, canvas_px):
    outside = np.random.default_rng(0).integers(-300, 1800, (40, 2))
    centres = np.vstack((grid(1488, 1104, 128), outside))
    with open_slide(slide.path, backend, mpp=mpp) as same:
        tiles, failed, _ = all_tiles(CanvasReader(same, canvas_px=canvas_px), centres)
        assert (tiles == TripletReader(same).read(centres)).all()
    assert failed == []


def test_a_block_is_a_square_of_the_finest_magnification(slide):
    centres = grid(1488, 1104, 128)
    blocks = CanvasReader(slide, canvas_px=512).plan(centres)
    # 1488 x 1104 px are 12 x 9 centres (the last at 1472 and 1088), 512 px hold 4 of them: 3 x 3 blocks.
    assert [len(indices) for indices in blocks] == [16, 16, 16, 16, 16, 16, 4, 4, 4]
    assert centres[blocks[1]].min(axis=0).tolist() == [576, 64]
    assert centres[blocks[1]].max(axis=0).tolist() == [960, 448]
    block = CanvasReader(slide, canvas_px=512).read(centres, blocks[0])
    # 40x: four tiles side by side. 10x: centres 96 px apart in all and a tile around. 2.5x: 24 px and a tile.
    assert [canvas.shape for canvas in block.canvases] == [(512, 512, 3), (224, 224, 3), (152, 152, 3)]
    assert block.starts_px[:, 1].tolist() == [[128, 0], [32, 0], [8, 0]]


def test_a_scan_at_80x_has_the_same_canvases_as_one_at_40x(slide):
    with open_slide(slide.path, mpp=0.125) as fine:
        reader = CanvasReader(fine, canvas_px=512)
    assert reader.block_level0 == 1024


def test_each_tile_of_the_file_is_decoded_once(slide, monkeypatch):
    decoded = []
    read_tile = type(slide.backend).read_tile

    def counting(self, level, column, row):
        decoded.append((level, column, row))
        return read_tile(self, level, column, row)

    monkeypatch.setattr(type(slide.backend), "read_tile", counting)
    all_tiles(CanvasReader(slide, canvas_px=512), grid(1408, 1024, 128))
    assert len(decoded) == len(set(decoded))
    assert {level for level, _, _ in decoded} == {0, 1, 2}


def test_little_is_kept(slide):
    """Tiles of the file that a grid covers exactly, and those inside of a block, are of no use to the next block."""
    cache = TileCache(1 << 30)
    all_tiles(CanvasReader(slide, magnifications=[40], canvas_px=512, cache=cache), grid(1024, 1024, 128))
    assert len(cache) == 0


@pytest.mark.parametrize(("level", "tile", "factor"), [(0, 1, 1), (1, 0, 4), (2, 0, 16)])
def test_a_broken_tile_costs_the_windows_on_it(tmp_path, write_tiff, make_texture, make_levels, level, tile, factor):
    pixels = make_texture(2048, 1024)
    whole = write_tiff(tmp_path / "a.tif", make_levels(pixels))
    broken = write_tiff(tmp_path / "b.tif", make_levels(pixels))
    break_tile(broken, level, tile)
    centres = grid(2048, 1024, 128)
    with open_slide(whole) as a, open_slide(broken) as b:
        side = b.backend.tile_size(level)[0]
        tiles, failed, blocks = all_tiles(CanvasReader(b, canvas_px=512), centres)
        expected, _, _ = all_tiles(CanvasReader(a, canvas_px=512), centres)
    starts = np.floor(centres / factor + 0.5) - 64
    corner = np.array((tile * side, 0))
    touch = ((starts + 128 > corner) & (starts < corner + side)).all(axis=1)
    assert failed == np.flatnonzero(touch).tolist()
    assert (tiles[~touch] == expected[~touch]).all()
    messages = {message for block in blocks for message in block.messages}
    assert len(messages) == 1
    assert f"tile at level {level}, column {tile}, row 0 (x {tile * side * factor}, y 0 at level 0)" in messages.pop()


def test_a_broken_tile_of_a_level_that_is_resampled_costs_the_windows_on_it_only(tmp_path, write_tiff, make_texture):
    """A slide without a pyramid lost 2,048 px at 2.5x around each broken tile, because they were resampled together."""
    pixels = make_texture(4096, 3072)
    whole, broken = (write_tiff(tmp_path / name, [pixels]) for name in ("a.tif", "b.tif"))
    with open_slide(broken) as slide:
        side = slide.backend.tile_size(0)[0]
    columns = -(-4096 // side)
    column, row = 2048 // side, 1024 // side
    break_tile(broken, 0, row * columns + column)
    centres = grid(4096, 3072, 128)
    with open_slide(whole) as a, open_slide(broken) as b:
        tiles, failed, _ = all_tiles(CanvasReader(b, magnifications=[2.5]), centres)
        expected, _, _ = all_tiles(CanvasReader(a, magnifications=[2.5]), centres)
    # A 2.5x tile reaches 1,024 px around its centre, and the filter one pixel of 16 further.
    corner = np.array((column * side, row * side))
    touch = ((centres + 1024 + 16 > corner) & (centres - 1024 - 16 < corner + side)).all(axis=1)
    assert 0 < touch.sum() < len(centres)
    assert set(failed) <= set(np.flatnonzero(touch).tolist())
    sure = ((centres + 1024 > corner) & (centres - 1024 < corner + side)).all(axis=1)
    assert set(np.flatnonzero(sure).tolist()) <= set(failed)
    kept = np.setdiff1d(np.arange(len(centres)), failed)
    assert (tiles[kept] == expected[kept]).all()


def test_threads_give_the_same(slide):
    centres = grid(1488, 1104, 64)
    reader = CanvasReader(slide, canvas_px=256, cache_bytes=1 << 20)
    plan = reader.plan(centres)
    alone = [reader.read(centres, indices).tiles() for indices in plan]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda indices: reader.read(centres, indices).tiles(), plan))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_no_centres_no_blocks(slide):
    assert CanvasReader(slide).plan(np.empty((0, 2), int)) == []


def test_settings_and_centres_are_checked(slide):
    for setting in ("tile_px", "canvas_px", "cache_bytes"):
        with pytest.raises(ConfigError, match=f"{setting} must be at least 1, got 0"):
            CanvasReader(slide, **{setting: 0})
    with pytest.raises(ConfigError, match="magnifications must hold at least one, got none"):
        CanvasReader(slide, magnifications=())
    with pytest.raises(SlideReadError, match=r"centres must be integers \(n, 2\).*got float64 \(1, 2\)"):
        CanvasReader(slide).plan([[0.5, 1.0]])
    with pytest.raises(SlideReadError, match="a block must hold at least one centre, got none"):
        CanvasReader(slide).read([[1, 1]], np.empty(0, np.int64))
