# SPDX-License-Identifier: Apache-2.0
"""Before a fast way of running a network is trusted with a slide: does it say what the network itself says?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.inference.agreement import Agreement, measure_agreement
from tral_monai.inference.block_stream import block_stream
from tral_monai.inference.device_block import DeviceBlock, device_blocks
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import PerTileModel, TileModel
from tral_monai.slides.canvases import CanvasReader

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)
_RUNS = 8  # of neighbouring tiles, spread over the tissue: neighbours, because dense context shares their pixels


class AgreementCheck(Generic[Answer]):
    """Compares a fast way with the reference on sampled tiles of the first slides, until there are enough of them.

    Args:
        reference: what the network itself says of a block.
        other: what the fast way says of it.
        measure: compares two lists of such answers.
        settings: how many tiles to compare, and how many must agree.
        device: where the networks are.

    Attributes:
        agreement: of all tiles compared so far, None before the first.
    """

    def __init__(
        self,
        reference: Callable[[DeviceBlock], Answer],
        other: Callable[[DeviceBlock], Answer],
        measure: Callable[[list[Answer], list[Answer]], Agreement],
        *,
        settings: EngineSettings,
        device: torch.device,
    ) -> None:
        self.settings, self.device = settings, device
        self.agreement: Agreement | None = None
        self._reference, self._other, self._measure = reference, other, measure
        self._expected: list[Answer] = []
        self._found: list[Answer] = []
        self._tiles = 0

    @property
    def missing_tiles(self) -> int:
        """Tiles still to be compared."""
        return self.settings.agreement_tiles - self._tiles

    def __call__(self, name: str, reader: CanvasReader, centres_level0: npt.NDArray[np.int64]) -> None:
        """Compare on one slide, unless enough tiles have been compared.

        Args:
            name: what is compared, for the log.
            reader: of the slide.
            centres_level0: (n, 2) int64 centres of the slide's tiles.

        Raises:
            AgreementError: fewer agree than the settings ask for.
        """
        if self.missing_tiles <= 0 or not len(centres_level0):
            return
        sample = centres_level0[_spread(reader.plan(centres_level0), self.missing_tiles)]
        for _, block in device_blocks(block_stream(reader, sample, num_workers=0), self.device):
            if len(block):
                self._expected.append(self._reference(block))
                self._found.append(self._other(block))
                self._tiles += len(block)
        if not self._tiles:
            return
        self.agreement = self._measure(self._expected, self._found)
        _log.info("%s", self.agreement.sentence(name))
        self.agreement.require(self.settings.min_agreement, engine=name)


def tile_agreement_check(reference: PerTileModel, model: TileModel, settings: EngineSettings) -> AgreementCheck[Any]:
    """A check of a way to classify tiles.

    Args:
        reference: the network as it is.
        model: what is to be used.
        settings: see :class:`AgreementCheck`.
    """
    return AgreementCheck(
        lambda block: reference(block, done=_nobody).logits.cpu(),
        lambda block: model(block, done=_nobody).logits.cpu(),
        lambda expected, found: measure_agreement(torch.cat(expected), torch.cat(found)),
        settings=settings,
        device=reference.device,
    )


def _nobody(tiles: int) -> None:
    """Progress that is not shown: these tiles come again."""


def _spread(blocks: list[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int64]:
    """Runs of neighbouring tiles at equal distances through the order of work."""
    order = np.concatenate(blocks)
    if len(order) <= count:
        return order
    length = -(-count // _RUNS)
    first = np.linspace(0, len(order) - length, _RUNS).astype(np.int64)
    return order[np.unique(first[:, None] + np.arange(length))][:count]
