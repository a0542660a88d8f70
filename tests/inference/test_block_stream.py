# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.inference.block_stream import block_stream
from tral_monai.slides.canvases import CanvasBlock, CanvasReader
from tral_monai.slides.slide import Slide, open_slide

CENTRES = np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(64, 2048, 128), np.arange(64, 1536, 128))])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    return open_slide(write_slide(tmp_path_factory.mktemp("slides") / "s.tif", slide_pixels()))


class WatchedReader(CanvasReader):
    """Notes the thread and the place in the plan of every block that is begun; the first ones take longest."""

    def __init__(self, slide: Slide, *, fail_at: int | None = None) -> None:
        super().__init__(slide, canvas_px=512)
        self.begun: list[int] = []
        self.threads: set[str] = set()
        self.fail_at = fail_at

    def read(self, centres_xy_level0: object, indices: np.ndarray) -> CanvasBlock:  # type: ignore[type-arg, override]
        number = next(i for i, block in enumerate(self.plan(CENTRES)) if block[0] == indices[0])
        self.begun.append(number)
        self.threads.add(threading.current_thread().name)
        if number == self.fail_at:
            raise SlideReadError("the slide is closed")
        time.sleep(0.02 * (number % 3 == 0))
        return super().read(CENTRES, indices)


@pytest.mark.parametrize(("num_workers", "read_ahead"), [(0, 2), (1, 0), (1, 2), (3, 1)])
def test_blocks_come_in_the_order_of_the_plan(slide: Slide, num_workers: int, read_ahead: int) -> None:
    reader = WatchedReader(slide)
    plan = reader.plan(CENTRES)
    assert len(plan) == 12
    blocks = list(block_stream(reader, CENTRES, num_workers=num_workers, read_ahead=read_ahead))
    assert [block.indices.tolist() for block in blocks] == [indices.tolist() for indices in plan]
    own = {name for name in reader.threads if name.startswith("tral_monai-decode")}
    assert len(own) <= num_workers
    assert bool(own) == bool(num_workers)  # without workers it reads in the calling thread


def test_it_reads_ahead_but_no_further_than_asked(slide: Slide) -> None:
    reader = WatchedReader(slide)
    stream = block_stream(reader, CENTRES, num_workers=1, read_ahead=2)
    next(stream)
    deadline = time.monotonic() + 5
    while len(reader.begun) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert sorted(reader.begun) == [0, 1, 2]  # one handed over, one and two read ahead
    stream.close()


def test_leaving_early_stops_the_threads(slide: Slide) -> None:
    reader = WatchedReader(slide)
    stream = block_stream(reader, CENTRES, num_workers=2)
    next(stream)
    stream.close()
    begun = len(reader.begun)
    time.sleep(0.1)
    assert len(reader.begun) == begun < 12
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tral_monai-decode")]


def test_an_error_comes_after_the_blocks_before_it(slide: Slide) -> None:
    stream = block_stream(WatchedReader(slide, fail_at=4), CENTRES, num_workers=3)
    for _ in range(4):
        next(stream)
    with pytest.raises(SlideReadError, match="the slide is closed"):
        next(stream)


def test_settings_are_checked(slide: Slide) -> None:
    with pytest.raises(ConfigError, match="num_workers must be 0 or more, but is -1"):
        block_stream(CanvasReader(slide), CENTRES, num_workers=-1)
    with pytest.raises(ConfigError, match="read_ahead must be 0 or more, but is -2"):
        block_stream(CanvasReader(slide), CENTRES, read_ahead=-2)


def test_no_centres_no_blocks(slide: Slide) -> None:
    assert list(block_stream(CanvasReader(slide), np.empty((0, 2), np.int64))) == []
