# SPDX-License-Identifier: Apache-2.0
"""Tiles in the order in which they come, kept on disk, and given back in the order in which they lie on the slide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.atomic_file import temporary_path
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.mapped_tiles import MappedTiles


class FeatureSpool:
    """A temporary file of tiles with their features. In memory stay 16 bytes per tile.

    Args:
        target: the file that will be made of it; the spool lies beside it, with a name that
            :func:`tral_monai.atomic_file.remove_half_written` knows.
        dtype: of the features, ``float32`` or ``float16``.
    """

    def __init__(self, target: str | os.PathLike[str], dtype: str) -> None:
        self._dtype = np.dtype(dtype)
        self._path: Path = temporary_path(target)
        self._file = self._path.open("xb+")
        self._record: np.dtype[Any] | None = None
        self._rows: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        self._columns: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    @property
    def widths(self) -> tuple[int, int]:
        """Number of features and of probabilities of a tile; 0 before the first tile."""
        if self._record is None:
            return 0, 0
        return self._record["features"].shape[0], self._record["probabilities"].shape[0]

    def append(self, tiles: MappedTiles) -> None:
        """Keep the tiles of a block.

        Args:
            tiles: with their features.

        Raises:
            CheckpointError: a feature is not finite.
            ConfigError: the tiles have no features, or a feature is too large for the dtype.
        """
        if tiles.features is None:
            raise ConfigError("the network gives no features of its tiles; leave the writer of features out")
        if not np.isfinite(tiles.features).all():
            raise CheckpointError("the network's features are not finite; its weights are damaged")
        if tiles.features.size and np.abs(tiles.features).max() > np.finfo(self._dtype).max:
            raise ConfigError(
                f"the features reach {np.abs(tiles.features).max():.3g}, which {self._dtype} cannot hold; use float32"
            )
        if self._record is None:
            self._record = np.dtype(
                [
                    ("centre_level0", "<i8", (2,)),
                    ("probabilities", "<f4", tiles.probabilities.shape[1:]),
                    ("features", self._dtype, tiles.features.shape[1:]),
                ]
            )
        records = np.empty(len(tiles.rows), dtype=self._record)
        records["centre_level0"] = tiles.centres_level0
        records["probabilities"] = tiles.probabilities
        records["features"] = tiles.features
        self._file.write(records.tobytes())
        self._rows.append(np.asarray(tiles.rows, dtype=np.int64))
        self._columns.append(np.asarray(tiles.columns, dtype=np.int64))

    def in_order(self, count: int) -> Iterator[npt.NDArray[Any]]:
        """All tiles by row, then by column, whatever the order in which they came.

        Args:
            count: tiles that are read at once.

        Yields:
            Records with ``centre_level0`` (2,), ``probabilities`` (C,) and ``features`` (F,).
        """
        if self._record is None:
            return
        order = np.lexsort((np.concatenate(self._columns), np.concatenate(self._rows)))
        for start in range(0, len(order), count):
            part = order[start : start + count]
            size = self._record.itemsize
            view = memoryview(bytearray(len(part) * size))
            # Neighbours of one row of one block lie one behind the other, and are read together.
            breaks = np.flatnonzero(np.diff(part) != 1) + 1
            for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(part)], strict=True):
                self._file.seek(int(part[begin]) * size)
                if self._file.readinto(view[begin * size : end * size]) != (end - begin) * size:
                    raise OSError(f"the temporary file {self._path.name} was cut off while it was in use")
            yield np.frombuffer(view, dtype=self._record)

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
