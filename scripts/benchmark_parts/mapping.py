# SPDX-License-Identifier: Apache-2.0
"""One way of mapping a part of a slide, ready to take its turn: prepared once, then timed, its answers kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark_parts.centres import tissue_square
from benchmark_parts.common import SCRIPTS, Options, Spent, clock, say
from tral_monai.inference.agreement import Agreement, measure_agreement
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.plan import InferencePlan
from tral_monai.inference.tissue_mapper import TissueMapper
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import Slide, open_slide

_AGREEMENT_TILES = 1  # the mapper compares engines itself, before the first run; ours is over all tiles, below


class Region:
    """The square of a slide that every plan maps, with its mask and its tiles.

    Attributes:
        slide: open.
        box_level0: (x, y, width, height).
        centres: (n, 2) int64 of its tiles with tissue.
    """

    def __init__(self, options: Options, path: Path, tiles: int) -> None:
        self.path = path
        self.slide: Slide = open_slide(path, "auto", options.mpp if path == options.slide else None)
        self.box_level0 = tissue_square(self.slide, tiles)
        mapper = TissueMapper(_Nothing(), device="cpu")
        self.mask = mapper.tissue_mask(self.slide)
        found: list[NDArray[np.int64]] = []
        mapper.map_slide(
            self.slide,
            region_level0=self.box_level0,
            mask=self.mask,
            on_tiles=lambda tiles: found.append(tiles.centres_level0),
        )
        self.centres = np.concatenate(found)
        say(f"  {path.name}: {len(self.centres)} tiles with tissue in {self.box_level0}")


class _Nothing(torch.nn.Module):
    classes = ("Tissue", "Other")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(image), 2, device=image.device)


class MapperPlan:
    """A ``TissueMapper`` over the region.

    Args:
        region: what to map.
        network: the network; plans may share it.
        settings: see ``TissueMapper``: ``engine``, ``early_exit``, ``num_workers`` and so on.

    Attributes:
        preparation_s: wall-clock seconds of the first batch beyond those of the second: compiling, converting.
        probabilities: (n, C) float32 of the last run, in the order of their centres.
        seconds: of the last run's stages, from its record.
        computed: counts of the last run, from its record.
    """

    def __init__(self, region: Region, network: TriCNN, *, device: str, batch_size: int, **settings: Any) -> None:
        self.region = region
        engine = settings.pop("engine", EngineSettings())
        engine = EngineSettings(
            name=engine.name, precision=engine.precision, min_agreement=0.0, agreement_tiles=_AGREEMENT_TILES
        )
        self.mapper = TissueMapper(network, engine=engine, device=device, batch_size=batch_size, **settings)
        self.preparation_s = 0.0
        self.probabilities = np.empty((0, 0), np.float32)
        self.seconds: dict[str, float] = {}
        self.computed: dict[str, int] = {}
        self._prepare()

    def __call__(self) -> Spent:
        """Map the region once."""
        parts: list[MappedTiles] = []
        with clock() as spent:
            found = self.mapper.map_slide(
                self.region.slide, region_level0=self.region.box_level0, mask=self.region.mask, on_tiles=parts.append
            )
        centres = np.concatenate([part.centres_level0 for part in parts])
        self.probabilities = in_order(centres, np.concatenate([part.probabilities for part in parts]))
        self.seconds, self.computed = dict(found.seconds), dict(found.computed)
        return spent

    def _prepare(self) -> None:
        mapper, region = self.mapper, self.region
        network = mapper.network.to(mapper.device).eval()
        assert network is mapper.network
        reader = CanvasReader(region.slide, magnifications=mapper.magnifications, tile_px=mapper.tile_px)
        some = region.centres[: mapper.batch_size]
        spent: list[float] = []
        with torch.inference_mode():
            for _ in range(2):
                with InferencePlan(reader, some, device=mapper.device, num_workers=0) as plan, clock() as one:
                    for _, block in plan:
                        mapper.model(block, want_features=False, done=_nobody)
                spent.append(one.wall)
        self.preparation_s = max(0.0, spent[0] - spent[1])
        x, y = region.centres[0].tolist()
        mapper.map_slide(region.slide, region_level0=(x - 8, y - 8, 16, 16), mask=region.mask)  # its own comparison


class PlainLoop:
    """What a user writes first: every tile from OpenSlide by itself, batches through torch in full precision.

    Attributes:
        probabilities: (n, C) float32 of the last run, in the order of their centres.
        preparation_s: nothing to prepare.
    """

    preparation_s = 0.0

    def __init__(self, region: Region, network: TriCNN, *, device: str, batch_size: int) -> None:
        sys.path.insert(0, str(SCRIPTS))
        from benchmark_reading import read_naively

        self._read: Callable[..., Any] = read_naively
        self.region, self.batch_size, self.device = region, batch_size, torch.device(device)
        self.network = network.to(self.device).eval()
        self.probabilities = np.empty((0, 0), np.float32)

    def __call__(self) -> Spent:
        """Map the region once."""
        parts: list[NDArray[np.float32]] = []
        with clock() as spent, torch.inference_mode():
            for _, tiles in self._read(self.region.path, self.region.slide, self.region.centres):
                image = torch.from_numpy(tiles).permute(0, 1, 4, 2, 3).flatten(1, 2)
                for batch in image.split(self.batch_size):
                    logits = self.network(batch.to(self.device).float())
                    parts.append(torch.softmax(logits, dim=1).cpu().numpy())
        self.probabilities = in_order(self.region.centres, np.concatenate(parts))
        return spent


def in_order(centres: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of values by the centres' y, then x."""
    return values[np.lexsort((centres[:, 0], centres[:, 1]))]


def agreement(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Agreement:
    """How far two plans agree on all tiles of the region."""
    logs = [torch.from_numpy(np.log(np.maximum(part, 1e-30))) for part in (reference, other)]
    return measure_agreement(*logs)


def _nobody(tiles: int) -> None:
    """Progress that nobody sees."""
