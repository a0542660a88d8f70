# SPDX-License-Identifier: Apache-2.0
"""Null model over a slide with tral_monai: all default outputs, under the same protocol as its peers."""

from __future__ import annotations

from peer_protocol import Stages, arguments, report

given = arguments()

import torch  # noqa: E402

from tral_monai.inference import TissueInference  # noqa: E402


class NullNetwork(torch.nn.Module):
    """Reads one value per tile and answers with two constant logits."""

    classes = ("Tissue", "Other")
    magnifications = (40.0,)

    logits: torch.Tensor

    def __init__(self, tile_px: int) -> None:
        super().__init__()
        self.tile_px = tile_px
        self.register_buffer("logits", torch.tensor([3.0, 0.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) or (B, H, W, 3) to (B, 2)."""
        return self.logits + image[:, 0, 0, 0, None].float() * 0.0


stages = Stages()
if given.threads:
    torch.set_num_threads(given.threads)
stages.mark("start-up")
(result,) = TissueInference(
    [given.slide],
    given.out,
    network=NullNetwork(given.tile_px),
    stride_px=given.tile_px,
    batch_size=given.batch_size,
    num_workers=0 if given.threads == 1 else 1,  # a decoding thread would be a second one
    device="cpu",
    resume=False,
    progress=False,
).run()
stages.mark("run")
report(
    stages,
    tiles=result.record["result"]["tissue_tiles"],
    outputs=[path.name for path in given.out.iterdir()],
    packages=("tral_monai", "torch", "monai"),
)
