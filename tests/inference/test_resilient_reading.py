# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tral_monai.errors import SlideReadError
from tral_monai.inference.resilient_reading import ResilientReading


class BrokenReader:
    """A reader of a slide with broken columns; a real reader of a broken file is tested with the mapper."""

    def __init__(self, broken_x: set[int]) -> None:
        self.broken_x = broken_x
        self.reads = 0

    def iter_blocks(
        self, centres: npt.NDArray[np.int64], max_triplets: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        for start in range(0, len(centres), max_triplets):
            self.reads += 1
            indices = np.arange(start, min(start + max_triplets, len(centres)))
            for x, y in centres[indices]:
                if int(x) in self.broken_x:
                    raise SlideReadError(f"region at ({x // 100 * 100}, {y // 100 * 100}) cannot be decoded")
            yield indices, centres[indices, :1].astype(np.uint8)


def grid(columns: int, rows: int) -> npt.NDArray[np.int64]:
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)


def test_without_failures_everything_comes_once_in_the_readers_blocks() -> None:
    centres = grid(10, 3)
    reading = ResilientReading(BrokenReader(set()), centres, max_triplets=8)
    blocks = list(reading)
    assert [len(indices) for indices, _ in blocks] == [8, 8, 8, 6]
    assert np.concatenate([indices for indices, _ in blocks]).tolist() == list(range(30))
    assert reading.failed == []


def test_only_the_broken_tiles_are_missing_and_each_tile_is_its_own() -> None:
    centres = grid(40, 5)
    reading = ResilientReading(BrokenReader({7, 20}), centres, max_triplets=16)
    read: dict[int, int] = {}
    for indices, tiles in reading:
        for index, tile in zip(indices.tolist(), tiles[:, 0].tolist(), strict=True):
            assert index not in read
            read[index] = tile
    assert {index: int(centres[index, 0]) for index in read} == read
    broken = {index for index, (x, _) in enumerate(centres.tolist()) if x in (7, 20)}
    assert set(reading.failed) == broken
    assert set(read) | broken == set(range(200))
    assert reading.messages == ["region at (0, 0) cannot be decoded"]


def test_a_file_that_is_broken_everywhere_is_given_up_in_groups() -> None:
    centres = grid(200, 50)
    reader = BrokenReader(set(range(200)))
    reading = ResilientReading(reader, centres, max_triplets=256)
    assert list(reading) == []
    assert sorted(reading.failed) == list(range(10_000))
    assert reader.reads < 2_000  # one by one it would be 20,000
