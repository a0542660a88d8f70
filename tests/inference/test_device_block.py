# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from tral_monai.inference.device_block import DeviceBlock, _gathered, device_blocks
from tral_monai.slides.canvases import CanvasBlock


def block(seed: int = 0) -> CanvasBlock:
    rng = np.random.default_rng(seed)
    return CanvasBlock(
        indices=np.arange(5),
        canvases=tuple(rng.integers(0, 256, (side, side + 9, 3), dtype=np.uint8) for side in (40, 20)),
        starts_px=rng.integers(0, 10, (2, 5, 2)),
        tile_px=8,
        failed=np.empty(0, np.int64),
    )


def test_tiles_are_the_windows_channels_first() -> None:
    source = block()
    ((same, on_device),) = device_blocks([source], torch.device("cpu"))
    assert same is source
    assert len(on_device) == 5
    tiles = on_device.tiles(slice(1, 4))
    assert (tiles.dtype, tuple(tiles.shape)) == (torch.uint8, (3, 6, 8, 8))
    x, y = source.starts_px[1, 2]
    by_hand = source.canvases[1][y : y + 8, x : x + 8].transpose(2, 0, 1)
    assert (tiles[1, 3:].numpy() == by_hand).all()
    assert (tiles[:, :3].numpy() == source.tiles()[1:4, 0].transpose(0, 3, 1, 2)).all()


def test_some_scales_and_some_rows() -> None:
    ((_, on_device),) = device_blocks([block()], torch.device("cpu"))
    everything = on_device.tiles(slice(None))
    assert (on_device.tiles(torch.tensor([4, 0]), [1]) == everything[[4, 0], 3:]).all()
    assert on_device.tiles(slice(None), [0]).is_contiguous(memory_format=torch.channels_last)


def test_a_part_is_some_of_the_tiles() -> None:
    ((_, on_device),) = device_blocks([block()], torch.device("cpu"))
    part = on_device.part(torch.tensor([3, 1]))
    assert len(part) == 2
    assert (part.tiles(slice(None)) == on_device.tiles(torch.tensor([3, 1]))).all()


def test_on_the_cpu_canvases_are_not_copied() -> None:
    source = block()
    ((_, on_device),) = device_blocks([source], torch.device("cpu"))
    assert on_device.canvases[0].numpy().base is source.canvases[0] or np.shares_memory(
        on_device.canvases[0].numpy(), source.canvases[0]
    )


def test_the_gpus_way_of_cutting_gives_the_same() -> None:
    ((_, on_device),) = device_blocks([block()], torch.device("cpu"))
    for scale in (0, 1):
        gathered = _gathered(on_device.canvases[scale], on_device.starts_px[scale], 8)
        assert (gathered.permute(0, 3, 1, 2) == on_device.tiles(slice(None), [scale])).all()


@pytest.mark.gpu
def test_on_a_gpu_in_order_and_the_same() -> None:
    device = torch.device("cuda")
    sources = [block(seed) for seed in range(6)]
    for source, (same, on_device) in zip(sources, device_blocks(sources, device), strict=True):
        assert same is source
        assert on_device.device.type == "cuda"
        tiles = on_device.tiles(slice(None)).cpu().numpy()
        assert (tiles == source.tiles().transpose(0, 1, 4, 2, 3).reshape(5, 6, 8, 8)).all()


def test_a_window_may_touch_the_last_pixel() -> None:
    canvas = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(4, 5, 3)
    one = DeviceBlock((canvas,), torch.tensor([[[2, 1]]]), 3)
    assert (one.tiles(slice(None))[0] == canvas[1:4, 2:5].permute(2, 0, 1)).all()
    assert (_gathered(canvas, torch.tensor([[2, 1]]), 3)[0] == canvas[1:4, 2:5]).all()
