# SPDX-License-Identifier: Apache-2.0
"""Half precision where the answer is clear, full precision where two classes are close."""

from __future__ import annotations

from typing import Any

import torch

from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.tile_model import PerTileModel, TileModel, TileOutputs, TilesDone


class RecheckedModel:
    """Asks a fast model first, and the network in full precision again about tiles whose two best classes are close.

    Half precision moves probabilities by a few hundredths, which changes a class only where two were close anyway. Few
    tiles are, so most of the speed stays, and the classes are those of full precision.

    Args:
        fast: the model in half precision.
        exact: the network in full precision, tile by tile.
        margin: difference of the two largest probabilities below which a tile is asked about again, above 0 to 1.
    """

    def __init__(self, fast: TileModel, exact: PerTileModel, margin: float) -> None:
        self.fast, self.exact, self.margin = fast, exact, margin

    @property
    def network(self) -> torch.nn.Module:
        """The network of both."""
        return self.exact.network

    def settings(self) -> dict[str, Any]:
        """Those of the fast model, and the margin."""
        return {**self.fast.settings(), "recheck_margin": self.margin}

    def runtime(self) -> dict[str, Any]:
        """How the fast model is run."""
        return self.fast.runtime()

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """The answers for all tiles of a block.

        Args:
            block: the tiles.
            want_features: also give the pooled features; those of tiles asked about again are in full precision.
            done: told how many tiles are done.
        """
        found = self.fast(block, want_features=want_features, done=done)
        best = torch.softmax(found.logits.float(), dim=1).topk(min(2, found.logits.shape[1]), dim=1).values
        # A NaN is not close to anything: it is asked about again too.
        close = torch.nonzero(~(best[:, 0] - best[:, -1] >= self.margin)).flatten()
        computed = {**found.computed, "rechecked": len(close)}
        if not len(close):
            return TileOutputs(found.logits, found.features, computed)
        again = self.exact(block.part(close.cpu()), want_features=want_features, done=_counted_already)
        logits = found.logits.clone()
        logits[close] = again.logits.to(logits.dtype)
        features = found.features
        if features is not None and again.features is not None:
            features = features.clone()
            features[close] = again.features.to(features.dtype)
        return TileOutputs(logits, features, computed)


def _counted_already(tiles: int) -> None:
    """These tiles were reported as done by the fast model."""
