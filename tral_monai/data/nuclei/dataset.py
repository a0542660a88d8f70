# SPDX-License-Identifier: Apache-2.0
"""A PyTorch dataset of fields of view with boxes, for detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tral_monai.data.nuclei.fov_samples import fov_samples
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import CohortError, ConfigError, UnknownClassError

Role = Literal["target", "prototype", "k_plus_one"]
"""What a detector learns: the known classes; known against unknown; or the known classes and "unknown" as one more."""

NEITHER = -1
"""Label of a nucleus that is neither positive nor negative in training."""

BoxTransform = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""(image uint8 (3, h, w), boxes float32 (k, 4), generator) -> the same, changed together; boxes keep their order."""


class NucleusDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Items ``{"image": uint8 (3, h, w), "boxes": float32 (k, 4), "labels": int64 (k,), "id": int}``.

    Boxes are xmin, ymin, xmax, ymax in pixels of the image, the maximum exclusive. Labels are those of torchvision's
    detectors, 0 being background:

    ============== =========== ========== ========
    role           known class unknown    ignored
    ============== =========== ========== ========
    ``target``     1 to K      -1         -1
    ``prototype``  1           2          -1
    ``k_plus_one`` 1 to K      K + 1      -1
    ============== =========== ========== ========

    Transforms draw from a generator that is seeded by (seed, epoch, pass, id), so an item does not depend on the order
    or the worker in which it is read. Somebody must say which epoch it is (:meth:`set_epoch`); without that every epoch
    draws alike. An index may be (position, pass), as :class:`~tral_monai.data.nuclei.pass_sampler.PassSampler` gives
    it: a sample that comes again within an epoch is drawn anew.

    Args:
        data: A parquet file, a table of FOVs, or a short list of dicts as MONAI Label gives it: ``{"image": path,
            "boxes": [[xmin, ymin, xmax, ymax], ...], "classes": [name, ...], "mpp": 0.25}``. ``classes`` are answers:
            a known class, ``unknown`` or ``ignored``.
        classes: Known classes in the detector's order.
        role: What the detector learns.
        transforms: Applied in order, see :data:`BoxTransform`.
        seed: Of the transforms' draws.
        fetch: ``tensor`` as above; ``array`` gives the image as uint8 array (h, w, 3), for code without torch.
        cache_bytes: Memory for decoded images in each process.
        fov_mpp: For a list of dicts: the resolution to bring the images to. None leaves them as they are.

    Raises:
        ConfigError: A setting is unknown, or a transform cannot be called.
        CohortError: The data lack something, or a box has no area.
        UnknownClassError: A nucleus has a class that is neither known nor an answer.
    """

    def __init__(
        self,
        data: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        *,
        role: Role = "target",
        transforms: Sequence[BoxTransform] = (),
        seed: int = 0,
        fetch: Literal["tensor", "array"] = "tensor",
        cache_bytes: int = 512 << 20,
        fov_mpp: float | None = None,
    ) -> None:
        if role not in get_args(Role):
            raise ConfigError(f"role must be one of {list(get_args(Role))}, but is {role!r}")
        if fetch not in ("tensor", "array"):
            raise ConfigError(f"fetch must be 'tensor' or 'array', but is {fetch!r}")
        for transform in transforms:
            if not callable(transform):
                raise ConfigError(f"transforms must be callables, but one is {type(transform).__name__}")
        if transforms and fetch == "array":
            raise ConfigError("transforms need fetch='tensor', but fetch is 'array'")
        self.table = fov_samples(data, fov_mpp=fov_mpp)
        self.classes = tuple(classes)
        self.role: Role = role
        self.transforms = tuple(transforms)
        self.seed = int(seed)
        self.fetch = fetch
        self.reader = FovReader(cache_bytes)
        # Shared with worker processes, which may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        numbers = label_numbers(self.classes, role)
        rows = self.table[["id", "field", "boxes_px", "classes"]].itertuples(index=False)
        self._boxes, self._labels = [], []
        for number, field, boxes, names in rows:
            self._boxes.append(_checked_boxes(boxes, names, f"FOV {number} of {field}"))
            self._labels.append(_labels(names, numbers, f"FOV {number} of {field}"))

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Have the transforms draw anew. Reaches workers that run already."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        index, number_of_pass = index if isinstance(index, tuple) else (index, 0)
        position = int(index) if index >= 0 else int(index) + len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        row = self.table.iloc[position]
        number = int(row["id"])
        pixels = self.reader.read(row)
        boxes = torch.from_numpy(self._boxes[position].copy())
        labels = torch.from_numpy(self._labels[position].copy())
        if self.fetch == "array":
            return {"image": pixels, "boxes": boxes, "labels": labels, "id": number}
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self.transforms:
            generator = item_generator(self.seed, int(self._epoch), number, number_of_pass)
            for transform in self.transforms:
                image, boxes = transform(image, boxes, generator)
        return {"image": image, "boxes": boxes, "labels": labels, "id": number}


def label_numbers(classes: Sequence[str], role: Role) -> dict[str, int]:
    """Answer -> label of a role; see :class:`NucleusDataset`."""
    known = {name: 1 if role == "prototype" else number for number, name in enumerate(classes, start=1)}
    unknown = {"target": NEITHER, "prototype": 2, "k_plus_one": len(classes) + 1}[role]
    return {**known, UNKNOWN: unknown, IGNORED: NEITHER}


def item_generator(seed: int, epoch: int, number: int, number_of_pass: int = 0) -> torch.Generator:
    """The generator of one item in one pass of one epoch."""
    state = np.random.SeedSequence([seed, epoch, number, number_of_pass]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def _labels(names: Sequence[str], numbers: Mapping[str, int], where: str) -> npt.NDArray[np.int64]:
    strange = sorted(set(names) - set(numbers))
    if strange:
        raise UnknownClassError(
            f"{where}: the classes {strange} are neither known {[n for n in numbers if n not in (UNKNOWN, IGNORED)]} "
            f"nor '{UNKNOWN}' or '{IGNORED}'; turn true classes into answers with OpenSet.answers first"
        )
    return np.asarray([numbers[name] for name in names], dtype=np.int64)


def _checked_boxes(boxes: npt.ArrayLike, names: Sequence[str], where: str) -> npt.NDArray[np.float32]:
    array = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    if len(array) != len(names):
        raise CohortError(f"{where}: {len(array)} boxes but {len(names)} classes; give one class per box")
    bad = ~(np.isfinite(array).all(1) & (array[:, 2:] > array[:, :2]).all(1))
    if bad.any():
        raise CohortError(
            f"{where}: box {array[bad][0].tolist()} has no area; boxes are xmin, ymin, xmax, ymax with the maximum "
            "beyond the minimum. Correct or leave out this nucleus"
        )
    return array
