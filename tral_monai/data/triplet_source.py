# SPDX-License-Identifier: Apache-2.0
"""Pixels of the samples of a triplet index, from however many slides, in the order of the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import CohortError
from tral_monai.slides import TripletReader, open_slide, triplets_to_tensor_layout

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


class TripletSource:
    """Reads triplets of many slides; keeps one reader open for each slide, in each process for itself."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, float], TripletReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_readers": {}}

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
        for (path, mpp), group in rows.groupby(["slide_path", "slide_mpp"], sort=False):
            positions = group.index.to_numpy()
            centres = group[["x_level0", "y_level0"]].to_numpy(np.int64)
            for block, triplets in self._reader(str(path), float(mpp)).iter_blocks(centres, max_triplets=max_triplets):
                yield positions[block], triplets_to_tensor_layout(triplets)

    def _reader(self, path: str, mpp: float) -> TripletReader:
        if (path, mpp) not in self._readers:
            self._readers[path, mpp] = TripletReader(open_slide(path, mpp=mpp))
        return self._readers[path, mpp]
