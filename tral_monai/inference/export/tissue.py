# SPDX-License-Identifier: Apache-2.0
"""Exporting a TriCNN: a batch of tiles at several magnifications in, logits out."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tral_monai.inference.agreement import Agreement, measure_agreement
from tral_monai.inference.export.deployable import Answers, Run, Tiles
from tral_monai.inference.export.tile_sources import drawn_tiles, tissue_tiles
from tral_monai.networks.tri_cnn import TriCNN

_BATCH = 16
_NO_STAIN = (
    "the network holds a stain normalisation (Macenko), which this format cannot; use pt2 or the checkpoint, or train "
    "without stain_normalization"
)


class TileLogits(nn.Module):
    """A TriCNN that takes tiles only, not features as well: one input of one shape.

    Args:
        network: the network.
    """

    def __init__(self, network: TriCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3 * magnifications, tile_px, tile_px) uint8 -> (B, C) float32."""
        return self.network.head(self.network.features(image))


class TissueExport:
    """See :class:`~tral_monai.inference.export.deployable.Deployable`.

    Args:
        network: the network, on the CPU.
    """

    output_names = ("pred",)
    any_batch = True

    def __init__(self, network: TriCNN) -> None:
        self.network = network.eval()
        self.module = TileLogits(network).eval()
        self.tile_px = network.tile_px
        self.refused: dict[str, str] = {}
        if network.stain_normalization:
            self.refused = dict.fromkeys(("onnx", "openvino", "torchscript"), _NO_STAIN)

    def metadata(self) -> dict[str, str]:
        """Classes, magnifications, layout."""
        return {
            "network": "TriCNN",
            "classes": json.dumps(list(self.network.classes)),
            "magnifications": json.dumps(list(self.network.magnifications)),
            "tile_px": str(self.tile_px),
            "input": (
                "image: uint8 (B, 3 * magnifications, tile_px, tile_px), RGB 0 to 255 of tiles that share a centre"
            ),
            "output": "pred: float32 (B, classes), logits; softmax gives probabilities",
        }

    def data_format(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """The bundle's description with this network's magnifications, tile size and classes."""
        names = [f"{magnification:g}x" for magnification in self.network.magnifications]
        changed: dict[str, Any] = copy.deepcopy(dict(described))
        changed["image_classes"] = f"RGB tiles that share a centre: {', '.join(names)}"
        changed["pred_classes"] = f"{len(self.network.classes)} logits: {', '.join(self.network.classes)}"
        formats = changed["network_data_format"]
        colours = [f"{colour} {name}" for name in names for colour in ("red", "green", "blue")]
        formats["inputs"]["image"] |= {
            "num_channels": len(colours),
            "spatial_shape": [self.tile_px, self.tile_px],
            "channel_def": {str(number): text for number, text in enumerate(colours)},
        }
        formats["outputs"]["pred"] |= {
            "num_channels": len(self.network.classes),
            "channel_def": {str(number): name for number, name in enumerate(self.network.classes)},
        }
        return changed

    def generated_tiles(self, count: int, *, seed: int) -> Tiles:
        """Drawn tiles."""
        return drawn_tiles(count, magnifications=self.network.magnifications, tile_px=self.tile_px, seed=seed)

    def slide_tiles(self, path: Path, count: int, *, mpp: float | None, seed: int) -> Tiles:
        """Tiles of a slide's tissue."""
        return tissue_tiles(
            path, count, magnifications=self.network.magnifications, tile_px=self.tile_px, mpp=mpp, seed=seed
        )

    def reference(self, tiles: Tiles) -> Answers:
        """Logits of the network as its checkpoint has it."""
        with torch.no_grad():
            return self.answers(lambda batch: (self.network(torch.from_numpy(batch)).numpy(),), tiles)

    def answers(self, run: Run, tiles: Tiles) -> Answers:
        """Logits of an exported file, batch by batch, the last one smaller."""
        parts = [run(tiles[start : start + _BATCH])[0] for start in range(0, len(tiles), _BATCH)]
        return {"pred": np.concatenate(parts).astype(np.float32)}

    def compare(self, reference: Answers, other: Answers) -> Agreement:
        """Classes and probabilities of the tiles."""
        return measure_agreement(reference["pred"], other["pred"])
