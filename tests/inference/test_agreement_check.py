# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.errors import AgreementError
from tral_monai.inference.agreement_check import AgreementCheck, _spread, tile_agreement_check
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import PerTileModel, TileOutputs
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import Slide, open_slide

CENTRES = np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(64, 2048, 128), np.arange(64, 1536, 128))])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    return open_slide(write_slide(tmp_path_factory.mktemp("slides") / "s.tif", slide_pixels()))


class EveryTenthWrong:
    """The network, but every tenth tile gets its classes turned round."""

    def __init__(self, network: torch.nn.Module, wrong: int = 10) -> None:
        self.network, self.wrong, self.seen = network, wrong, 0
        self.exact = PerTileModel(network)

    def settings(self) -> dict[str, Any]:
        return {"wrong": self.wrong}

    def runtime(self) -> dict[str, Any]:
        return {}

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: Any) -> TileOutputs:
        logits = self.exact(block, done=done).logits.clone()
        number = torch.arange(self.seen, self.seen + len(logits))
        self.seen += len(logits)
        logits[number % self.wrong == 0] = logits[number % self.wrong == 0].flip(1)
        return TileOutputs(logits)


def check(slide: Slide, settings: EngineSettings, wrong: int = 10) -> AgreementCheck[Any]:
    network = ColourNet().eval()
    made = tile_agreement_check(PerTileModel(network), EveryTenthWrong(network, wrong), settings)
    with torch.inference_mode():
        made("a fast way", CanvasReader(slide, canvas_px=512), CENTRES)
    return made


def test_what_disagrees_is_refused_with_the_figures(slide: Slide) -> None:
    with pytest.raises(AgreementError, match=r"a fast way gives the class .* on 90 of 100 sampled tiles \(90\.0 %\)"):
        check(slide, EngineSettings(agreement_tiles=100, min_agreement=0.95))


def test_what_agrees_well_enough_is_told_and_used(slide: Slide, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = check(slide, EngineSettings(agreement_tiles=100, min_agreement=0.9))
    assert made.agreement is not None
    assert (made.agreement.tiles, made.agreement.class_agreement) == (100, 0.9)
    assert "a fast way gives the class of torch fp32 on 90 of 100 sampled tiles" in caplog.text
    assert made.missing_tiles == 0


def test_a_small_slide_is_topped_up_by_the_next(slide: Slide) -> None:
    network = ColourNet().eval()
    made = tile_agreement_check(
        PerTileModel(network), EveryTenthWrong(network, 1000), EngineSettings(agreement_tiles=30, min_agreement=0.5)
    )
    reader = CanvasReader(slide)
    with torch.inference_mode():
        for expected in (12, 24, 30, 30):
            made("x", reader, CENTRES[:12])
            assert made.agreement is not None
            assert made.agreement.tiles == expected


def test_the_sample_is_runs_of_neighbours_from_all_over() -> None:
    blocks = [np.arange(0, 1000), np.arange(1000, 4000)]
    order = np.concatenate(blocks)
    sample = _spread(order, 64)
    assert len(sample) == len(set(sample.tolist())) == 64
    # Eight runs of eight; the first starts at 0, the last ends at the end, equal distances of 3992 / 7 between.
    assert sample[::8].tolist() == [0, 570, 1140, 1710, 2281, 2851, 3421, 3992]
    assert sample[8:16].tolist() == list(range(570, 578))
    assert _spread(order, 5000).tolist() == list(range(4000))
