# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.inference.mask_cache import MaskCache
from tral_monai.slides.slide import Slide, open_slide
from tral_monai.slides.tissue import TissueMask, tissue_mask


class Maker:
    """Makes real masks and counts them."""

    def __init__(self, **settings: Any) -> None:
        self._settings, self.made = settings, 0

    def settings(self) -> dict[str, Any]:
        return {"tissue_method": "auto", "stride_px": 128, **self._settings}

    def tissue_mask(self, slide: Slide) -> TissueMask:
        self.made += 1
        return tissue_mask(slide)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "a.tif", slide_pixels())


def test_a_mask_is_made_once(path: Path) -> None:
    cache, maker = MaskCache(), Maker()
    for _ in range(3):
        with open_slide(path) as slide:
            mask = cache.mask(path, slide, maker)
    assert maker.made == 1
    with open_slide(path) as slide:
        np.testing.assert_array_equal(mask.mask, tissue_mask(slide).mask)


def test_other_settings_of_the_mask_make_another_and_others_do_not(path: Path) -> None:
    cache, paper, coarse = MaskCache(), Maker(tissue_method="paper"), Maker(stride_px=256)
    with open_slide(path) as slide:
        cache.mask(path, slide, Maker())
        cache.mask(path, slide, paper)
        cache.mask(path, slide, coarse)
    assert (paper.made, coarse.made) == (1, 0)


def test_a_file_that_changes_is_looked_at_again(path: Path) -> None:
    cache, maker = MaskCache(), Maker()
    with open_slide(path) as slide:
        before = cache.mask(path, slide, maker)
    write_slide(path, slide_pixels(("SS", "..")))
    with open_slide(path) as slide:
        after = cache.mask(path, slide, maker)
    assert maker.made == 2
    assert before.mask.shape != after.mask.shape


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    cache, maker = MaskCache(slides=2), Maker()
    paths = [write_slide(tmp_path / f"{name}.tif", slide_pixels(("SS", "S."))) for name in "abc"]
    for number in (0, 1, 0, 2, 0, 1):  # when c comes, b goes: a was used after it
        with open_slide(paths[number]) as slide:
            cache.mask(paths[number], slide, maker)
    assert maker.made == 4


def test_threads_that_ask_at_once_make_it_once(path: Path) -> None:
    cache, maker = MaskCache(), Maker()
    barrier = threading.Barrier(4)

    def ask() -> None:
        with open_slide(path) as slide:
            barrier.wait()
            cache.mask(path, slide, maker)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert maker.made == 1
