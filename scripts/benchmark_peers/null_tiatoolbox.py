# SPDX-License-Identifier: Apache-2.0
"""Null model over a slide with tiatoolbox's PatchPredictor: its tissue mask, its patches, its QuPath output."""

from __future__ import annotations

import json
from typing import Any

from peer_protocol import Stages, arguments, report

given = arguments()

import torch  # noqa: E402
from tiatoolbox.models import IOPatchPredictorConfig, PatchPredictor  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402


class NullNetwork(ModelABC):
    """Reads one value per tile and answers with two constant probabilities."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) or (B, H, W, 3) to (B, 2)."""
        return torch.tensor([0.9, 0.1]) + image[:, 0, 0, 0, None].float() * 0.0

    @staticmethod
    def postproc(image: Any) -> Any:
        """Probabilities to class numbers."""
        return image.argmax(axis=-1)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> Any:
        """As the engine calls it."""
        with torch.inference_mode():
            return model(batch_data.to(device)).numpy()


stages = Stages()
if given.threads:
    torch.set_num_threads(given.threads)
stages.mark("start-up")
engine = PatchPredictor(model=NullNetwork(), batch_size=given.batch_size, num_workers=0, device="cpu", verbose=False)
found = engine.run(
    images=[given.slide],
    patch_mode=False,
    ioconfig=IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": 0.25}],
        output_resolutions=[{"units": "mpp", "resolution": 0.25}],
        patch_input_shape=(given.tile_px, given.tile_px),
        stride_shape=(given.tile_px, given.tile_px),
    ),
    output_type="qupath",
    class_dict={0: "Tissue", 1: "Other"},
    save_dir=given.out / "tiatoolbox",
)
stages.mark("run")
written = next(iter(found.values()))
report(
    stages,
    tiles=len(json.loads(written.read_text())["features"]),
    outputs=[written.name],
    packages=("tiatoolbox", "torch", "openslide-python"),
)
