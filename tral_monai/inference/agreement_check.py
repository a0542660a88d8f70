# SPDX-License-Identifier: Apache-2.0
"""Before a fast way of running a network is trusted with a slide: does it say what the network itself says?"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.inference.agreement import Agreement, measure_agreement, permitted_differences
from tral_monai.inference.block_stream import block_stream
from tral_monai.inference.device_block import DeviceBlock, device_blocks
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import PerTileModel, TileModel
from tral_monai.slides.canvases import CanvasReader

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)
_RUNS = 8  # of neighbouring tiles, spread over the tissue: neighbours, because dense context shares their pixels
_LATER = 8  # of agreement_tiles, compared on each slide once the sample is full
_MOST_SAMPLES = 4  # times agreement_tiles, where they show too little to compare
MIN_AGREEMENT = 0.99
"""Floor where the settings leave it open."""


class AgreementCheck(Generic[Answer]):
    """Compares a fast way with the reference on sampled tiles: many of the first slides, some of each that follows.

    The sample is full with ``agreement_tiles`` tiles, on which at least ``least_compared`` things were compared, or
    with four times as many tiles. It may take several slides. The run is refused as soon as more differ than the full
    sample permits (``floor((1 - min_agreement) * sample)``; at 0.99, one of 128 tiles), or an output is not finite.
    Until the sample is full, the agreement so far is told and the run goes on: one difference on a small first slide
    ends nothing. Later slides add an eighth of ``agreement_tiles`` each to the sample, because the first slide of a
    folder may be an easy one; what is permitted grows with it.

    Args:
        reference: what the network itself says of a block.
        other: what the fast way says of it.
        measure: compares two lists of such answers.
        settings: how many tiles to compare, and how many must agree.
        device: where the networks are.
        default_floor: least share that must agree where the settings' ``min_agreement`` is None.
        least_compared: of what ``measure`` compares, where that is not the tiles: nuclei, of which tiles may hold none.

    Attributes:
        agreement: of all tiles compared so far, None before the first.
        floor: least share that must agree.
    """

    def __init__(
        self,
        reference: Callable[[DeviceBlock], Answer],
        other: Callable[[DeviceBlock], Answer],
        measure: Callable[[list[Answer], list[Answer]], Agreement],
        *,
        settings: EngineSettings,
        device: torch.device,
        default_floor: float = MIN_AGREEMENT,
        least_compared: int = 0,
    ) -> None:
        self.settings, self.device, self.least_compared = settings, device, least_compared
        self.floor = default_floor if settings.min_agreement is None else settings.min_agreement
        self._reference, self._other, self._measure = reference, other, measure
        self.reset()

    def reset(self) -> None:
        """Forget what was compared, after the weights have changed."""
        self.agreement: Agreement | None = None
        self._expected: list[Answer] = []
        self._found: list[Answer] = []
        self._tiles = 0

    @property
    def missing_tiles(self) -> int:
        """Tiles still to be compared; 0 when the sample is full."""
        asked = self.settings.agreement_tiles
        if self._tiles < asked:
            return asked - self._tiles
        if self.agreement is not None and self.agreement.compared >= self.least_compared:
            return 0
        return max(0, min(asked, _MOST_SAMPLES * asked - self._tiles))

    @property
    def sample(self) -> int:
        """Size of the full sample in things compared; where these are not tiles, as what was seen so far promises."""
        if self.agreement is None:
            return max(self.settings.agreement_tiles, self.least_compared)
        parts = max(self.settings.agreement_tiles, self._tiles)
        return max(self.least_compared, self.agreement.compared * parts // self._tiles)

    def describe(self) -> dict[str, Any] | None:
        """What was compared and what was asked for, as plain data; None where nothing was."""
        if self.agreement is None:
            return None
        return {
            **self.agreement.describe(),
            "differing": self.agreement.differing,
            "min_agreement": self.floor,
            "sample": self.sample,
            "permitted": permitted_differences(self.floor, self.sample),
            "full": self.missing_tiles == 0,
        }

    def __call__(self, name: str, reader: CanvasReader, centres_level0: npt.NDArray[np.int64]) -> None:
        """Compare on one slide: what is missing in the sample, or a few tiles where it is full.

        Args:
            name: what is compared, for the log.
            reader: of the slide.
            centres_level0: (n, 2) int64 centres of the slide's tiles.

        Raises:
            AgreementError: more differ than the full sample permits.
        """
        if not len(centres_level0):
            return
        before = self._tiles
        left = np.concatenate(reader.plan(centres_level0))
        if not self.missing_tiles:
            self._compare(name, reader, centres_level0[_spread(left, self.settings.agreement_tiles // _LATER)])
        for _ in range(_MOST_SAMPLES):  # tiles may be broken, or show nothing to compare
            if not self.missing_tiles or not len(left):
                break
            drawn = _spread(left, self.missing_tiles)
            left = left[~np.isin(left, drawn)]
            self._compare(name, reader, centres_level0[drawn])
        if self.agreement is not None and self._tiles > before:
            more = "; more tiles are compared on the next slides" if self.missing_tiles else ""
            _tell(f"{self.agreement.sentence(name)}{more}")

    def _compare(self, name: str, reader: CanvasReader, sample: npt.NDArray[np.int64]) -> None:
        if not len(sample):
            return
        for _, block in device_blocks(block_stream(reader, sample, num_workers=0), self.device):
            if len(block):
                self._expected.append(self._reference(block))
                self._found.append(self._other(block))
                self._tiles += len(block)
        if self._tiles:
            self.agreement = self._measure(self._expected, self._found)
            self.agreement.require(self.floor, engine=name, sample=self.sample)


def tile_agreement_check(
    reference: PerTileModel,
    model: TileModel,
    settings: EngineSettings,
    *,
    shown: Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]] | None = None,
    default_floor: float = MIN_AGREEMENT,
) -> AgreementCheck[Any]:
    """A check of a way to classify tiles.

    Args:
        reference: the network as it is.
        model: what is to be used.
        settings: see :class:`AgreementCheck`.
        shown: the classes that a map shows for probabilities (n, C); None: the most probable ones.
        default_floor: see :class:`AgreementCheck`.
    """
    return AgreementCheck(
        lambda block: reference(block, done=_nobody).logits.cpu(),
        lambda block: model(block, done=_nobody).logits.cpu(),
        lambda expected, found: measure_agreement(torch.cat(expected), torch.cat(found), shown=shown),
        settings=settings,
        device=reference.device,
        default_floor=default_floor,
    )


def _tell(sentence: str) -> None:
    """By the log where it takes information, else on the terminal: whoever asks for speed shall see its price."""
    if _log.isEnabledFor(logging.INFO) and _log.hasHandlers():
        _log.info("%s", sentence)
    else:
        print(sentence, file=sys.stderr)


def _nobody(tiles: int) -> None:
    """Progress that is not shown: these tiles come again."""


def _spread(order: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Runs of neighbouring tiles at equal distances through the order of work."""
    if len(order) <= count:
        return order
    length = -(-count // _RUNS)
    first = np.linspace(0, len(order) - length, _RUNS).astype(np.int64)
    return order[np.unique(first[:, None] + np.arange(length))][:count]
