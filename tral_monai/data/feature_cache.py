# SPDX-License-Identifier: Apache-2.0
"""Features of a frozen backbone, computed once for each triplet and kept on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tral_monai.atomic_file import atomic_path
from tral_monai.data.triplet_source import TripletSource, slide_groups
from tral_monai.slides.fingerprint import slide_fingerprint

_SAVE_EVERY = 4096  # triplets: on two CPU cores about a minute's work, which is what a killed process may lose

Progress = Callable[[int, int], None]
"""Called with (triplets done, triplets to do)."""


class FeatureNetwork(Protocol):
    """A network with a feature part and a name for exactly that part."""

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Features (B, F) of triplets (B, 9, 128, 128)."""
        ...

    def feature_fingerprint(self) -> str:
        """A hash that changes whenever the features would."""
        ...


class FeatureCache:
    """Features of triplets under ``folder``, one file for each slide and network.

    A file is keyed by the network's fingerprint and by the slide's content, not by its path, and is replaced as a
    whole, so a killed process leaves no half-written file. New triplets of a slide are added to those that are there.

    Args:
        folder: where the files are kept; made where it does not exist.
        network: the network whose ``features`` are cached. It is moved to ``device`` and run in evaluation mode.
        device: where the features are computed.
        batch_size: triplets in one forward pass.
        progress: called after each batch with (done, to do).
    """

    def __init__(
        self,
        folder: str | Path,
        network: FeatureNetwork,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._network, self._device = network, torch.device(device)
        self._batch_size, self.progress = batch_size, progress
        self._source = TripletSource()

    def get(self, table: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Features (n, F) float32 of the samples, in the order of the table; what is missing is computed first."""
        rows = table.reset_index(drop=True)
        fingerprint = self._network.feature_fingerprint()[:16]
        groups = [(positions, self._file(fingerprint, path, mpp)) for path, mpp, positions in slide_groups(rows)]
        centres = rows[["x_level0", "y_level0"]].to_numpy(np.int64)
        stored = [_load(file) for _, file in groups]
        missing = [
            np.array([p for p in positions if tuple(centres[p]) not in known], dtype=np.int64)
            for (positions, _), known in zip(groups, stored, strict=True)
        ]
        done, total = 0, sum(len(positions) for positions in missing)
        for (_, file), known, absent in zip(groups, stored, missing, strict=True):
            if absent.size:
                unsaved = 0
                for positions, features in self._compute(rows, absent):
                    known.update(zip(map(tuple, centres[positions].tolist()), features, strict=True))
                    done, unsaved = done + len(positions), unsaved + len(positions)
                    if unsaved >= _SAVE_EVERY:
                        _save(file, known)
                        unsaved = 0
                    if self.progress is not None:
                        self.progress(done, total)
                _save(file, known)
        out: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
        for (positions, _), known in zip(groups, stored, strict=True):
            for position in positions:
                out[position] = known[tuple(centres[position].tolist())]
        return np.stack(out) if out else np.empty((0, 0), np.float32)

    @torch.inference_mode()
    def _compute(
        self, rows: pd.DataFrame, absent: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        network = self._network
        if isinstance(network, torch.nn.Module):
            training = network.training
            with torch.inference_mode(False):  # else buffers that are moved could not be trained afterwards
                network.to(self._device).eval()
        for positions, images in self._source.iter_blocks(rows.iloc[absent], max_triplets=self._batch_size):
            features = network.features(torch.from_numpy(images).to(self._device))
            yield absent[positions], features.float().cpu().numpy()
        if isinstance(network, torch.nn.Module):
            network.train(training)

    def _file(self, fingerprint: str, path: str, mpp: float) -> Path:
        stat = Path(path).stat()
        return self.folder / fingerprint / f"{_content(path, stat.st_size, stat.st_mtime_ns)[:16]}-{mpp:.4f}.npz"


@functools.lru_cache(maxsize=4096)
def _content(path: str, size: int, mtime_ns: int) -> str:
    """The slide's fingerprint, found once in a process: every round asks for it several times."""
    return slide_fingerprint(path)


def _load(file: Path) -> dict[tuple[int, int], npt.NDArray[np.float32]]:
    if not file.is_file():
        return {}
    with np.load(file) as stored:
        return dict(zip(map(tuple, stored["xy_level0"].tolist()), stored["features"], strict=True))


def _save(file: Path, known: dict[tuple[int, int], npt.NDArray[np.float32]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as path:
        np.savez(path, xy_level0=np.array(list(known), dtype=np.int64), features=np.stack(list(known.values())))
