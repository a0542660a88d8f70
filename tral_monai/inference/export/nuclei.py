# SPDX-License-Identifier: Apache-2.0
"""Exporting an OpenSetRCNN: one tile of a fixed size in, boxes with classes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.agreement import Agreement
from tral_monai.inference.export.deployable import Answers, Run, Tiles
from tral_monai.inference.export.one_tile_detector import OneTileDetector
from tral_monai.inference.export.tile_sources import drawn_tiles, tissue_tiles
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.slides.magnification import mpp_to_magnification

_SAME_BOX_IOU = 0.9
_REFUSED = {
    "torchscript": (
        "it is Python that handles lists of boxes of any length, which TorchScript cannot compile; use onnx or "
        "openvino, which take one tile of a fixed size"
    ),
    "pt2": (
        "torch.export cannot follow numbers of boxes that depend on the pixels; use onnx or openvino, which take one "
        "tile of a fixed size"
    ),
}


class NucleiExport:
    """See :class:`~tral_monai.inference.export.deployable.Deployable`.

    Args:
        network: the detector, on the CPU.
        tile_px: side of the tile that files take; None: that of the fields of view that it was trained on.

    Raises:
        ConfigError: the detector is an auxiliary one, or the tile is too small.
    """

    output_names = ("boxes", "labels", "scores", "probabilities", "evidence")
    any_batch = False

    def __init__(self, network: OpenSetRCNN, *, tile_px: int | None = None) -> None:
        if network.role == "prototype":
            raise ConfigError(
                "the checkpoint is of an auxiliary detector (role 'prototype'), which names no classes; export the "
                "target detector and give this one as auxiliary"
            )
        self.tile_px = tile_px if tile_px is not None else network.settings.fov_px
        if self.tile_px < 2 * max(network.settings.strides):
            raise ConfigError(
                f"tile_px must be at least {2 * max(network.settings.strides)}, twice the detector's coarsest stride, "
                f"but is {self.tile_px}"
            )
        self.network = network.eval()
        # A copy, because a trace leaves traced anchors in the network's cache.
        self.module = OneTileDetector(copy.deepcopy(network), self.tile_px).eval()
        self.refused: dict[str, str] = dict(_REFUSED)
        self.magnifications = (mpp_to_magnification(network.settings.fov_mpp),)

    def metadata(self) -> dict[str, str]:
        """Classes, resolution, layout."""
        return {
            "network": "OpenSetRCNN",
            "classes": json.dumps(list(self.network.outputs)),
            "mpp": str(self.network.settings.fov_mpp),
            "tile_px": str(self.tile_px),
            "input": "image: uint8 (3, tile_px, tile_px), RGB 0 to 255 at mpp micrometres per pixel",
            "output": (
                "n nuclei, best first. boxes: float32 (n, 4), xmin, ymin, xmax, ymax in pixels of the tile, maximum "
                "exclusive; labels: int64 (n,), index of the class; scores: float32 (n,); probabilities: float32 "
                "(n, 1 + classes), background first; evidence: float32 (n, classes)"
            ),
        }

    def data_format(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """The bundle's description with this detector's resolution and classes."""
        changed: dict[str, Any] = copy.deepcopy(dict(described))
        names = ("background", *self.network.outputs)
        changed["image_classes"] = f"RGB at {self.network.settings.fov_mpp:g} micrometres per pixel"
        changed["pred_classes"] = f"boxes with probabilities of {', '.join(names)}"
        changed["network_data_format"]["outputs"]["pred"] |= {
            "num_channels": len(names),
            "channel_def": {str(number): name for number, name in enumerate(names)},
        }
        return changed

    def generated_tiles(self, count: int, *, seed: int) -> Tiles:
        """Drawn tiles."""
        return drawn_tiles(count, magnifications=self.magnifications, tile_px=self.tile_px, seed=seed)

    def slide_tiles(self, path: Path, count: int, *, mpp: float | None, seed: int) -> Tiles:
        """Tiles of a slide's tissue."""
        return tissue_tiles(path, count, magnifications=self.magnifications, tile_px=self.tile_px, mpp=mpp, seed=seed)

    def reference(self, tiles: Tiles) -> Answers:
        """Nuclei of the detector as its checkpoint has it."""
        found = detect(self.network, list(torch.from_numpy(tiles)), want={"evidence"}, batch_size=4).detections
        assert found.probabilities is not None
        assert found.evidence is not None
        return {
            "count": found.counts,
            "boxes": found.boxes_px,
            "labels": found.labels,
            "scores": found.scores,
            "probabilities": found.probabilities,
            "evidence": found.evidence,
        }

    def answers(self, run: Run, tiles: Tiles) -> Answers:
        """Nuclei that an exported file finds, tile by tile."""
        found = [run(tile) for tile in tiles]
        counts = np.array([len(outputs[0]) for outputs in found], dtype=np.int64)
        columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return {"count": counts, **dict(zip(self.output_names, columns, strict=True))}

    def compare(self, reference: Answers, other: Answers) -> Agreement:
        """Nuclei that both find at the same place (IoU 0.9), their classes and probabilities.

        Returns:
            Its ``tiles`` are the nuclei of whichever finds more.

        Raises:
            ConfigError: the detector itself finds nothing on any tile.
        """
        if not len(reference["boxes"]):
            raise ConfigError(
                "the detector finds no nucleus on any tile, so nothing can be compared; give a slide with nuclei, or a "
                "checkpoint that is trained"
            )
        first, second = _by_tile(reference), _by_tile(other)
        same, largest = 0, 0.0
        for ours, theirs in zip(first, second, strict=True):
            for row, match in _pairs(ours["boxes"], theirs["boxes"]):
                same += int(ours["labels"][row] == theirs["labels"][match])
                difference = np.abs(ours["probabilities"][row] - theirs["probabilities"][match]).max()
                largest = max(largest, float(difference))
        broken = int((~np.isfinite(other["probabilities"])).any(axis=1).sum())
        total = max(len(reference["boxes"]), len(other["boxes"]))
        return Agreement(total, same / total, largest if not broken else 1.0, broken)


def _by_tile(answers: Answers) -> list[Answers]:
    ends = np.cumsum(answers["count"])[:-1]
    parts = {name: np.split(values, ends) for name, values in answers.items() if name != "count"}
    return [{name: values[tile] for name, values in parts.items()} for tile in range(len(answers["count"]))]


def _pairs(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Rows of the same box, each used once; the best of ours choose first."""
    if not len(ours) or not len(theirs):
        return []
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    area = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (ours, theirs)]
    overlap = shared / (area[0][:, None] + area[1][None] - shared)
    pairs = []
    for row in range(len(ours)):
        match = int(overlap[row].argmax())
        if overlap[row, match] >= _SAME_BOX_IOU:
            pairs.append((row, match))
            overlap[:, match] = 0.0
    return pairs
