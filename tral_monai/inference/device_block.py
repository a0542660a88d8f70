# SPDX-License-Identifier: Apache-2.0
"""Canvases on the device, tiles cut from them there; on a GPU the next block is copied while the model works."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import torch

from tral_monai.slides.canvases import CanvasBlock


@dataclasses.dataclass(frozen=True)
class DeviceBlock:
    """The tiles of a block as windows of canvases that are on the device.

    Attributes:
        canvases: one uint8 tensor (height, width, 3) per magnification.
        starts_px: (magnifications, k, 2) int64 on the CPU, upper left corner (x, y) of each tile in its canvas.
        tile_px: side of the tiles in pixels.
    """

    canvases: tuple[torch.Tensor, ...]
    starts_px: torch.Tensor
    tile_px: int

    def __len__(self) -> int:
        return int(self.starts_px.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the canvases are."""
        return self.canvases[0].device

    def part(self, rows: torch.Tensor) -> DeviceBlock:
        """Some of the tiles, of the same canvases.

        Args:
            rows: int64 indices on the CPU.
        """
        return DeviceBlock(self.canvases, self.starts_px[:, rows], self.tile_px)

    def tiles(self, rows: slice | torch.Tensor, scales: Sequence[int] | None = None) -> torch.Tensor:
        """Cut tiles: one copy, and with several magnifications a second that brings the channels to the front.

        Args:
            rows: which tiles; a slice, or int64 indices on the CPU.
            scales: which magnifications, as positions; all by default.

        Returns:
            (b, 3 * scales, tile_px, tile_px) uint8 on the device, RGB of each magnification in turn. With one
            magnification it is in the memory format channels_last.
        """
        chosen = range(len(self.canvases)) if scales is None else scales
        side = self.tile_px
        starts = self.starts_px[:, rows]
        out = torch.empty((starts.shape[1], len(chosen), side, side, 3), dtype=torch.uint8, device=self.device)
        for place, scale in enumerate(chosen):
            if self.device.type == "cpu":
                _copy_windows(self.canvases[scale].numpy(), starts[scale].tolist(), out[:, place].numpy())
            else:
                out[:, place] = _gathered(self.canvases[scale], starts[scale], side)
        return out.permute(0, 1, 4, 2, 3).reshape(starts.shape[1], 3 * len(chosen), side, side)


def device_blocks(
    blocks: Iterable[CanvasBlock], device: torch.device
) -> Generator[tuple[CanvasBlock, DeviceBlock], None, None]:
    """Bring blocks to a device.

    To a GPU the canvases go as uint8 from pinned memory on a stream of their own, one block ahead of the model. On the
    CPU nothing is copied.

    Args:
        blocks: blocks as they are decoded.
        device: where the model runs.

    Yields:
        Each block with its canvases on the device, in the order given.
    """
    if device.type != "cuda":
        for block in blocks:
            yield block, _on_device(block, device)
        return
    copies = torch.cuda.Stream(device)
    ahead: tuple[CanvasBlock, DeviceBlock, torch.cuda.Event] | None = None
    for block in blocks:
        with torch.cuda.stream(copies):
            uploaded = (block, _on_device(block, device), copies.record_event())
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = uploaded
    if ahead is not None:
        yield _arrived(*ahead)


def _on_device(block: CanvasBlock, device: torch.device) -> DeviceBlock:
    canvases = tuple(torch.from_numpy(canvas) for canvas in block.canvases)
    if device.type == "cuda":
        canvases = tuple(canvas.pin_memory().to(device, non_blocking=True) for canvas in canvases)
    elif device.type != "cpu":
        canvases = tuple(canvas.to(device) for canvas in canvases)
    return DeviceBlock(canvases, torch.from_numpy(block.starts_px), block.tile_px)


def _arrived(block: CanvasBlock, uploaded: DeviceBlock, copied: torch.cuda.Event) -> tuple[CanvasBlock, DeviceBlock]:
    """Let the model's stream wait for the copy, and the memory for the model."""
    stream = torch.cuda.current_stream(uploaded.device)
    stream.wait_event(copied)
    for canvas in uploaded.canvases:
        canvas.record_stream(stream)
    return block, uploaded


def _copy_windows(canvas: np.ndarray, starts: list[list[int]], out: np.ndarray) -> None:  # type: ignore[type-arg]
    side = out.shape[1]
    for row, (x, y) in enumerate(starts):
        out[row] = canvas[y : y + side, x : x + side]


def _gathered(canvas: torch.Tensor, starts: torch.Tensor, side: int) -> torch.Tensor:
    """(b, side, side, 3) windows in one kernel: every window there is, as a strided view, indexed by those wanted."""
    height, width, _ = canvas.shape
    line = 3 * width
    every = canvas.as_strided((height - side + 1, width - side + 1, side, 3 * side), (line, 3, line, 1))
    x, y = starts.to(canvas.device).unbind(1)
    return every[y, x].view(-1, side, side, 3)
