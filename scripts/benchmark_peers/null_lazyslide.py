# SPDX-License-Identifier: Apache-2.0
"""Null model over a slide with lazyslide: find tissue, tile, "extract features" (two constants), QuPath GeoJSON.

Whatever is optional and costs time is left out in the peer's favour: no transform, no progress bar, no zarr store.
"""

from __future__ import annotations

from peer_protocol import Stages, arguments, report

given = arguments()

import lazyslide  # noqa: E402
import torch  # noqa: E402
from wsidata import open_wsi  # noqa: E402


class NullNetwork(torch.nn.Module):
    """Reads one value per tile and answers with two constant logits."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) or (B, H, W, 3) to (B, 2)."""
        return torch.tensor([3.0, 0.0]) + image[:, 0, 0, 0, None].float() * 0.0


stages = Stages()
if given.threads:
    torch.set_num_threads(given.threads)
stages.mark("start-up")
wsi = open_wsi(str(given.slide), store=None)
lazyslide.pp.find_tissues(wsi)
lazyslide.pp.tile_tissues(wsi, given.tile_px, mpp=0.25)
lazyslide.tl.feature_extraction(
    wsi, NullNetwork(), device="cpu", batch_size=given.batch_size, pbar=False, key_added="null"
)
stages.mark("run")
tiles = wsi.shapes["tiles"]
tiles["class"] = ["Tissue", "Other"][0]
wsi.shapes["tiles"] = tiles
lazyslide.io.export_annotations(wsi, "tiles", classes="class", file=given.out / "tiles.geojson")
stages.mark("outputs")
report(
    stages,
    tiles=len(tiles),
    outputs=[path.name for path in given.out.iterdir()],
    packages=("lazyslide", "wsidata", "torch", "openslide-python"),
)
