# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.colour_slides import break_tile, slide_pixels, write_slide
from tral_monai.errors import SlideReadError
from tral_monai.inference.plan import InferencePlan
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import open_slide

CPU = torch.device("cpu")
CENTRES = np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(64, 2048, 128), np.arange(64, 1536, 128))])


def test_every_centre_comes_once_or_has_failed(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels())
    break_tile(path, 0, 0)  # 256 px: the first two tiles of the first two rows
    seen: list[int] = []
    with open_slide(path) as slide:
        reader = CanvasReader(slide, magnifications=[40], canvas_px=512)
        with InferencePlan(reader, CENTRES, device=CPU) as plan:
            for read, block in plan:
                assert len(read) == len(block)
                seen += read.indices.tolist()
        assert plan.failed().tolist() == [0, 1, 16, 17]
    assert sorted([*seen, 0, 1, 16, 17]) == list(range(len(CENTRES)))
    assert len(plan.messages) == 1
    assert plan.wait_seconds > 0


def test_a_slide_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels())
    for tile in range(8 * 6):
        break_tile(path, 0, tile)
    with open_slide(path) as slide, InferencePlan(CanvasReader(slide), CENTRES, device=CPU) as plan:
        assert list(plan) == []
        with pytest.raises(SlideReadError, match=r"s\.tif: none of the 192 tiles .*; s\.tif: tile at level 0"):
            plan.failed()


def test_leaving_by_an_error_stops_the_threads(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels())
    with open_slide(path) as slide:
        plan = InferencePlan(CanvasReader(slide, canvas_px=256), CENTRES, device=CPU, num_workers=2)
        with pytest.raises(ZeroDivisionError), plan:
            1 / (len(next(iter(plan))[0]) * 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tral_monai-decode")]
