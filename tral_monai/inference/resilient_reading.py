# SPDX-License-Identifier: Apache-2.0
"""Read every tile that can be read: a region that does not decode costs its own tiles and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tral_monai.errors import SlideReadError

# Looking for the broken tiles one by one costs two reads each. A file that is broken in so many places is not worth
# that: from then on a group of tiles around a failure is given up together.
_FAILURES_TO_LOCATE_SINGLY = 512
_GROUP_GIVEN_UP = 64


class BlockReader(Protocol):
    """What is needed of a reader of tiles."""

    def iter_blocks(
        self, centres: npt.NDArray[np.int64], max_triplets: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Tiles in blocks of neighbours: which of the centres, and their pixels."""


class ResilientReading:
    """Blocks of tiles from a reader; tiles that raise ``SlideReadError`` are left out and remembered.

    Args:
        reader: the reader of tiles.
        centres_level0: (n, 2) int64 centres.
        max_triplets: most tiles per block.

    Attributes:
        failed: indices of the centres that could not be read, complete once iteration has ended.
        messages: what the reader said, each message once, in order.
    """

    def __init__(self, reader: BlockReader, centres_level0: npt.NDArray[np.int64], *, max_triplets: int) -> None:
        self.failed: list[int] = []
        self.messages: list[str] = []
        self._reader = reader
        self._centres = centres_level0
        self._max_triplets = max_triplets

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        groups = [np.arange(len(self._centres), dtype=np.int64)]
        while groups:
            group = groups.pop()
            if not group.size:
                continue
            pending = np.ones(group.size, dtype=bool)
            try:
                for local, tiles in self._reader.iter_blocks(self._centres[group], self._max_triplets):
                    pending[local] = False
                    yield group[local], tiles
            except SlideReadError as error:
                groups += self._divide(group[pending], error)

    def _divide(self, left: npt.NDArray[np.int64], error: SlideReadError) -> list[npt.NDArray[np.int64]]:
        smallest = 1 if len(self.failed) < _FAILURES_TO_LOCATE_SINGLY else _GROUP_GIVEN_UP
        if left.size > smallest:
            # Halves along the longer side stay compact, so that one broken region falls into few of them.
            centres = self._centres[left]
            axis = int(np.argmax(np.ptp(centres, axis=0)))
            order = left[np.argsort(centres[:, axis], kind="stable")]
            return [order[order.size // 2 :], order[: order.size // 2]]
        self.failed += left.tolist()
        message = str(error)
        if message not in self.messages:
            self.messages.append(message)
        return []
