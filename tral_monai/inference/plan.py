# SPDX-License-Identifier: Apache-2.0
"""The way from a slide's file to the device that both bundles share: blocks, threads, a bounded queue, one upload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.errors import SlideReadError
from tral_monai.inference.block_stream import block_stream
from tral_monai.inference.device_block import DeviceBlock, device_blocks
from tral_monai.slides.canvases import CanvasBlock, CanvasReader


class InferencePlan:
    """Brings the tiles around some centres to the device, block by block; a context manager that stops its threads.

    At most ``num_workers + read_ahead + 1`` blocks are in memory, on a GPU one more, whatever the slide's size. The
    order of the blocks depends on the centres only. Tiles that cannot be decoded are left out and remembered.

    Args:
        reader: of the slide.
        centres_level0: (n, 2) int64 centres (x, y).
        device: where the model runs.
        num_workers: threads that decode; 0 reads in the calling thread.
        read_ahead: decoded blocks that may wait for the model.

    Attributes:
        wait_seconds: wall-clock seconds that the model waited for pixels.
        messages: what the reader said about tiles that it could not decode, each once.

    Raises:
        ConfigError: ``num_workers`` or ``read_ahead`` is negative.
    """

    def __init__(
        self,
        reader: CanvasReader,
        centres_level0: npt.NDArray[np.int64],
        *,
        device: torch.device,
        num_workers: int = 1,
        read_ahead: int = 2,
    ) -> None:
        self.wait_seconds = 0.0
        self.messages: dict[str, None] = {}
        self._name, self._count = reader.slide.name, len(centres_level0)
        self._failed: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._stack = contextlib.ExitStack()
        stream = block_stream(reader, centres_level0, num_workers=num_workers, read_ahead=read_ahead)
        self._stack.enter_context(contextlib.closing(stream))
        self._blocks = self._stack.enter_context(contextlib.closing(device_blocks(stream, device)))

    def __enter__(self) -> InferencePlan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[CanvasBlock, DeviceBlock]]:
        """Every block with tiles, decoded and on the device."""
        while True:
            since = time.perf_counter()
            found = next(self._blocks, None)
            self.wait_seconds += time.perf_counter() - since
            if found is None:
                return
            self._failed.append(found[0].failed)
            self.messages.update(dict.fromkeys(found[0].messages))
            if len(found[0]):
                yield found

    def failed(self) -> npt.NDArray[np.int64]:
        """Which centres could not be read, in rising order; complete once iteration has ended.

        Raises:
            SlideReadError: none could be read.
        """
        failed = np.sort(np.concatenate(self._failed))
        if self._count and len(failed) == self._count:
            raise SlideReadError(
                f"{self._name}: none of the {self._count} tiles to look at can be decoded; {next(iter(self.messages))}"
            )
        return failed
