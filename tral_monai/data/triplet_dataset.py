# SPDX-License-Identifier: Apache-2.0
"""A PyTorch dataset of triplets (or of their cached features) read straight from the slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tral_monai.data.triplet_source import TripletSource, sample_table
from tral_monai.errors import UnknownClassError

UNLABELLED = -1
"""Label of a sample whose class is not known."""


class FeatureSource(Protocol):
    """Anything that gives a feature row for each sample, such as a ``FeatureCache``."""

    def get(self, table: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Features (n, F) of the samples of a table."""
        ...


class TripletDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples ``{"image": ..., "label": int64, "id": int64}`` of a triplet index.

    ``image`` is a uint8 tensor (9, 128, 128), RGB at 40x, 10x and 2.5x, or, with ``features``, a float32 tensor (F,).
    A batch is read in one go (``__getitems__``), grouped by slide, so that a JPEG tile is decoded once for all the
    triplets that share it. Slides are opened lazily in each worker process. Decoded triplets are kept in memory up to
    ``keep_bytes``, after which they are read again in each epoch.

    Args:
        data: a parquet file, a table, or a list of dicts, with the columns ``slide_path, slide_mpp, x_level0,
            y_level0`` (the tile's centre) and, where known, ``class`` and ``id``. MONAI Label hands lists, everything
            else hands a path: each entry of a list in a bundle config costs time and memory.
        classes: class names in the network's order.
        features: where given, ``image`` holds these features and no pixel is read.
        keep_bytes: memory for decoded triplets, in bytes; a triplet takes 147,456.

    Raises:
        UnknownClassError: a sample has a class that is not among ``classes``.
    """

    def __init__(
        self,
        data: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        *,
        features: FeatureSource | None = None,
        keep_bytes: int = 2 << 30,
    ) -> None:
        self.table = sample_table(data)
        self.classes = tuple(classes)
        self.labels = _class_numbers(self.table, self.classes)
        self._feature_source = features
        self._features: torch.Tensor | None = None
        self._source = TripletSource()
        self._kept: dict[int, torch.Tensor] = {}
        self._keep_bytes = keep_bytes

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples at these positions; PyTorch's loader calls this once for a batch."""
        positions = [int(i) if i >= 0 else int(i) + len(self) for i in indices]
        images = self._features_of(positions) if self._feature_source is not None else self._triplets_of(positions)
        ids = self.table["id"].to_numpy()
        return [
            {"image": image, "label": int(self.labels[position]), "id": int(ids[position])}
            for position, image in zip(positions, images, strict=True)
        ]

    def _features_of(self, positions: Sequence[int]) -> Sequence[torch.Tensor]:
        # Fetched at first use, not in __init__: the network that makes them may load a checkpoint in between.
        if self._features is None:
            assert self._feature_source is not None
            self._features = torch.from_numpy(self._feature_source.get(self.table))
        return list(self._features[list(positions)])

    def _triplets_of(self, positions: Sequence[int]) -> list[torch.Tensor]:
        missing = sorted({position for position in positions if position not in self._kept})
        fresh: dict[int, torch.Tensor] = {}
        if missing:
            images = torch.from_numpy(self._source.read(self.table.iloc[missing]))
            fresh = dict(zip(missing, images, strict=True))
            room = (self._keep_bytes // images[0].numel()) - len(self._kept)
            for position in missing[: max(room, 0)]:
                self._kept[position] = fresh[position].clone()
        return [self._kept[position] if position in self._kept else fresh[position] for position in positions]


def _class_numbers(table: pd.DataFrame, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    if "class" not in table:
        return np.full(len(table), UNLABELLED, dtype=np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    names = [str(name) for name in table["class"].fillna("")]
    unknown = sorted(set(names) - set(numbers) - {""})
    if unknown:
        raise UnknownClassError(
            f"samples have the classes {unknown}, but the network knows only {list(classes)}; turn the names into its "
            "classes with a class map (class_map), or choose a network that has them"
        )
    return np.asarray([numbers.get(name, UNLABELLED) for name in names], dtype=np.int64)
