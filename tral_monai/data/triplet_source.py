# SPDX-License-Identifier: Apache-2.0
"""Pixels of the samples of a triplet index, from however many slides, in the order of the table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import CohortError
from tral_monai.slides import TripletReader, open_slide, triplets_to_tensor_layout
from tral_monai.slides.tile_cache import TileCache

NEEDED_COLUMNS = ("slide_path", "slide_mpp", "x_level0", "y_level0")


def sample_table(data: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A table of samples from a parquet file, a table, or a list of dicts; ``id`` is numbered where it is missing.

    Raises:
        CohortError: a column is missing, or the file does not exist.
    """
    if isinstance(data, (str, Path)):
        if not Path(data).is_file():
            raise CohortError(f"there is no sample table {data}; expected a parquet file of triplets")
        table = pd.read_parquet(data)
    else:
        table = data if isinstance(data, pd.DataFrame) else pd.DataFrame(list(data), columns=None)
    missing = [name for name in NEEDED_COLUMNS if name not in table]
    if missing and len(table):
        raise CohortError(f"samples lack {missing}; each needs {list(NEEDED_COLUMNS)}")
    table = table.reset_index(drop=True)
    if "id" not in table:
        table = table.assign(id=np.arange(len(table), dtype=np.int64))
    return table


def slide_groups(table: pd.DataFrame) -> list[tuple[str, float, npt.NDArray[np.intp]]]:
    """Which rows of a table lie on which slide: (path, mpp, positions), slides in the order of their first row."""
    rows: dict[tuple[str, float], list[int]] = {}
    for position, (path, mpp) in enumerate(zip(table["slide_path"].tolist(), table["slide_mpp"].tolist(), strict=True)):
        rows.setdefault((str(path), float(mpp)), []).append(position)
    return [(path, mpp, np.asarray(positions, dtype=np.intp)) for (path, mpp), positions in rows.items()]


OPEN_SLIDES = 64
"""Slides kept open at a time: a cohort may have more of them than a process may open files."""

CACHE_BYTES = 256 << 20
"""Decoded JPEG tiles kept for all open slides together."""


class TripletSource:
    """Reads triplets of many slides.

    The readers of the slides used last stay open, in each process for itself, and share one cache of decoded tiles, so
    that memory does not grow with the number of slides.
    """

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[str, float], TripletReader] = OrderedDict()
        self._cache = TileCache(CACHE_BYTES)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def read(self, table: pd.DataFrame) -> npt.NDArray[np.uint8]:
        """Triplets (n, 9, 128, 128) uint8 in the order of the table.

        Raises:
            SlideError: a slide cannot be opened or read; the message names it.
        """
        images = np.empty((len(table), 9, 128, 128), dtype=np.uint8)
        for positions, triplets in self.iter_blocks(table, max_triplets=1024):
            images[positions] = triplets
        return images

    def iter_blocks(
        self, table: pd.DataFrame, *, max_triplets: int
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]]:
        """Blocks of at most ``max_triplets`` as (positions in the table, triplets (k, 9, 128, 128) uint8)."""
        rows = table.reset_index(drop=True)
        for path, mpp, positions in slide_groups(rows):
            group = rows.iloc[positions]
            centres = group[["x_level0", "y_level0"]].to_numpy(np.int64)
            for block, triplets in self._reader(path, mpp).iter_blocks(centres, max_triplets=max_triplets):
                yield positions[block], triplets_to_tensor_layout(triplets)

    def _reader(self, path: str, mpp: float) -> TripletReader:
        if (path, mpp) not in self._readers:
            self._readers[path, mpp] = TripletReader(open_slide(path, mpp=mpp), cache=self._cache)
            if len(self._readers) > OPEN_SLIDES:
                _, oldest = self._readers.popitem(last=False)
                oldest.slide.close()
        self._readers.move_to_end((path, mpp))
        return self._readers[path, mpp]
