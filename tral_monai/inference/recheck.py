# SPDX-License-Identifier: Apache-2.0
"""Half precision where the answer is clear, full precision where a little would change what a map shows."""

from __future__ import annotations

from typing import Any

import torch

from tral_monai.inference.close_calls import close_calls
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.tile_model import PerTileModel, TileModel, TileOutputs, TilesDone


class RecheckedModel:
    """Asks a fast model first, and the network in full precision again where a little would change the class shown.

    That is where the two largest probabilities differ by less than the margin, and where the largest lies within half
    of the margin of a threshold of the map (:func:`tral_monai.inference.map_classes.decide`): ``undefined_below``, or
    ``damaged_at_least`` for the class ``Damaged``; where ``Damaged`` is the most probable class but too improbable to
    be shown, also where the second and the third differ by less than the margin.

    What this guarantees: the class shown is that of full precision wherever half precision moves no probability by half
    of the margin or more. It does not say how far half precision moves them; the comparison on sampled tiles
    (:class:`~tral_monai.inference.agreement_check.AgreementCheck`) tells the largest difference that is left.

    Args:
        fast: the model in half precision.
        exact: the network in full precision, tile by tile.
        margin: difference of the two largest probabilities below which a tile is asked about again, above 0 to 1.
        undefined_below: the map's rule; 0 where there is none.
        damaged_at_least: the map's rule; 0 where there is none.
        damaged_output: column of ``Damaged``; None where the network does not have it.
    """

    def __init__(
        self,
        fast: TileModel,
        exact: PerTileModel,
        margin: float,
        *,
        undefined_below: float = 0.0,
        damaged_at_least: float = 0.0,
        damaged_output: int | None = None,
    ) -> None:
        self.fast, self.exact, self.margin = fast, exact, margin
        self.undefined_below = undefined_below
        self.damaged_at_least = damaged_at_least if damaged_output is not None else 0.0
        self.damaged_output = damaged_output

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

    def reset(self) -> None:
        """Drop what both made of the weights, after these have changed."""
        for model in (self.fast, self.exact):
            model.reset()

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """The answers for all tiles of a block.

        Args:
            block: the tiles.
            want_features: also give the pooled features; those of tiles asked about again are in full precision.
            done: told how many tiles are done.
        """
        found = self.fast(block, want_features=want_features, done=done)
        close = torch.nonzero(
            close_calls(
                torch.softmax(found.logits.float(), dim=1),
                self.margin,
                undefined_below=self.undefined_below,
                damaged_at_least=self.damaged_at_least,
                damaged_output=self.damaged_output,
            )
        ).flatten()
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
