# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tests.inference.nuclei.disc_fields import DiscInferer, DiscNet, draw_discs
from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.errors import AgreementError
from tral_monai.inference.agreement_check import AgreementCheck, _spread, tile_agreement_check
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.nuclei.detection_agreement import detection_agreement
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

    def reset(self) -> None:
        """Nothing is made of weights."""

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
        for expected in (12, 24, 30, 33, 36):  # then an eighth of 30 of each slide
            made("x", reader, CENTRES[:12])
            assert made.agreement is not None
            assert made.agreement.tiles == expected


def test_one_difference_on_a_small_first_slide_ends_nothing(
    slide: Slide, without_log: None, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ColourNet().eval()
    settings = EngineSettings(agreement_tiles=128, min_agreement=0.99)  # one of 128 may differ
    made = tile_agreement_check(PerTileModel(network), EveryTenthWrong(network, 60), settings)
    reader = CanvasReader(slide)
    with torch.inference_mode():
        made("x", reader, CENTRES[:50])  # tile 0 differs: 98 %
        told = made.describe()
        assert told is not None
        assert (told["tiles"], told["class_agreement"], told["differing"]) == (50, 0.98, 1)
        assert (told["min_agreement"], told["sample"], told["permitted"], told["full"]) == (0.99, 128, 1, False)
        assert "on 49 of 50 sampled tiles (98.0 %)" in (line := capsys.readouterr().err)
        assert "more tiles are compared on the next slides" in line
        with pytest.raises(AgreementError, match=r"on 98 of 100 .* so that 1 of a sample of 128 may differ"):
            made("x", reader, CENTRES[:50])  # tile 60 differs too


def test_the_full_sample_is_told_as_such(slide: Slide) -> None:
    made = check(slide, EngineSettings(agreement_tiles=128, min_agreement=0.99), wrong=1000)
    told = made.describe()
    assert told is not None
    assert (told["tiles"], told["differing"], told["full"]) == (128, 1, True)


def test_the_floor_is_the_settings_own_or_the_default(slide: Slide) -> None:
    model = PerTileModel(ColourNet())
    assert tile_agreement_check(model, model, EngineSettings()).floor == 0.99
    assert tile_agreement_check(model, model, EngineSettings(), default_floor=0.9).floor == 0.9
    assert tile_agreement_check(model, model, EngineSettings(min_agreement=0.5), default_floor=0.9).floor == 0.5


def test_without_a_log_it_is_printed_and_with_one_only_logged(
    slide: Slide, without_log: None, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = EngineSettings(agreement_tiles=100, min_agreement=0.9)
    check(slide, settings)
    assert "a fast way gives the class of torch fp32 on 90 of 100 sampled tiles" in capsys.readouterr().err
    assert caplog.text == ""
    caplog.set_level(logging.INFO, "tral_monai.inference.agreement_check")
    check(slide, settings)
    assert "on 90 of 100 sampled tiles" in caplog.text
    assert capsys.readouterr().err == ""


def test_after_a_reset_it_compares_again(slide: Slide) -> None:
    made = check(slide, EngineSettings(agreement_tiles=100, min_agreement=0.9))
    made.reset()
    assert (made.agreement, made.describe(), made.missing_tiles) == (None, None, 100)


NUCLEI = [(32 + 64 * (n % 4), 64 + 128 * (n // 4), 8, n % 2) for n in range(8)]  # of a tile of 256 px


def nucleus_check(lost: Callable[[int], int], tiles: int = 2) -> AgreementCheck[Detections]:
    """A check whose fast detector loses so many nuclei of each tile that holds some, by the tile's number."""
    seen = 0

    def found(block: DeviceBlock) -> Detections:
        return DiscInferer()(list(block.tiles(slice(0, len(block)))), DiscNet())

    def fewer(block: DeviceBlock) -> Detections:
        nonlocal seen
        everything = found(block)
        keep = np.ones(len(everything.labels), dtype=bool)
        for start in everything.offsets[:-1]:
            keep[start : start + lost(seen)] = False
            seen += 1
        return Detections(
            offsets=np.concatenate([[0], np.cumsum(keep)])[everything.offsets],
            boxes_px=everything.boxes_px[keep],
            labels=everything.labels[keep],
            scores=everything.scores[keep],
        )

    return AgreementCheck(
        found,
        fewer,
        lambda expected, other: detection_agreement(concatenate(expected), concatenate(other)),
        settings=EngineSettings(agreement_tiles=tiles, min_agreement=0.98),
        device=torch.device("cpu"),
        least_compared=50,
    )


def field(folder: Path, filled: Sequence[int], tiles: int = 20) -> tuple[CanvasReader, Any]:
    """A row of tiles, of which some hold eight nuclei each."""
    discs = [(x + 256 * tile, y, radius, label) for tile in filled for x, y, radius, label in NUCLEI]
    Image.fromarray(draw_discs((256 * tiles, 256), discs)).save(folder / "field.png")
    reader = CanvasReader(open_slide(folder / "field.png", mpp=0.25), magnifications=(40.0,), tile_px=256)
    return reader, np.column_stack([np.arange(128, 256 * tiles, 256), np.full(tiles, 128)])


def test_tiles_are_drawn_until_enough_nuclei_were_seen(tmp_path: Path) -> None:
    made = nucleus_check(lambda tile: 0)
    made("x", *field(tmp_path, range(20)))
    told = made.describe()
    assert told is not None
    # 16 nuclei per two tiles: 16, 32, 48 are fewer than 50, and the fourth time is the last.
    assert (told["tiles"], told["boxes_reference"], told["boxes_other"], told["full"]) == (8, 64, 64, True)
    assert (told["sample"], told["permitted"]) == (64, 1)


def test_tiles_without_nuclei_are_told_to_say_nothing(
    tmp_path: Path, without_log: None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = nucleus_check(lambda tile: 0)
    made("torch bf16", *field(tmp_path, []))
    told = made.describe()
    assert told is not None
    assert (told["tiles"], told["boxes_reference"], told["full"]) == (8, 0, True)  # four times two tiles
    assert "find no nuclei on 8 sampled tiles, which says nothing" in capsys.readouterr().err


def test_one_lost_nucleus_of_a_few_is_permitted_and_two_are_not(tmp_path: Path) -> None:
    made = nucleus_check(lambda tile: int(tile == 0))
    made("x", *field(tmp_path, range(20)))
    assert made.agreement is not None
    assert (made.agreement.compared, made.agreement.differing) == (64, 1)
    with pytest.raises(AgreementError, match="finds 14 nuclei on 2 .* fp32 16; .* so that 1 of a sample of 50 may"):
        nucleus_check(lambda tile: 1)("x", *field(tmp_path, range(20)))


def test_before_the_sample_is_full_as_many_may_differ_as_it_will_permit(tmp_path: Path) -> None:
    # Two tiles of 48: their 16 nuclei promise 384, of which 7 may differ, so that 2 lost ones end nothing and 8 do.
    made = nucleus_check(lambda tile: 1, tiles=48)
    made("x", *field(tmp_path, range(2), tiles=2))
    told = made.describe()
    assert told is not None
    assert (told["differing"], told["sample"], told["permitted"], told["full"]) == (2, 384, 7, False)
    with pytest.raises(AgreementError, match="so that 7 of a sample of 384 may differ"):
        nucleus_check(lambda tile: 4, tiles=48)("x", *field(tmp_path, range(2), tiles=2))


def test_a_later_slide_that_disagrees_ends_the_run(slide: Slide) -> None:
    """An easy first slide said 100 %, and the next one's map differed in 9 % of its tiles."""
    network = ColourNet().eval()
    model = EveryTenthWrong(network, 1000)
    model.seen = 1  # the first of a thousand would be wrong
    made = tile_agreement_check(PerTileModel(network), model, EngineSettings(agreement_tiles=64, min_agreement=0.99))
    reader = CanvasReader(slide)
    with torch.inference_mode():
        made("x", reader, CENTRES)
        assert made.agreement is not None
        assert (made.agreement.tiles, made.agreement.class_agreement) == (64, 1.0)
        model.wrong = 4
        with pytest.raises(AgreementError, match=r"on 70 of 72 sampled tiles .* 0 of a sample of 72 may differ"):
            made("x", reader, CENTRES)


def test_the_sample_is_runs_of_neighbours_from_all_over() -> None:
    blocks = [np.arange(0, 1000), np.arange(1000, 4000)]
    order = np.concatenate(blocks)
    sample = _spread(order, 64)
    assert len(sample) == len(set(sample.tolist())) == 64
    # Eight runs of eight; the first starts at 0, the last ends at the end, equal distances of 3992 / 7 between.
    assert sample[::8].tolist() == [0, 570, 1140, 1710, 2281, 2851, 3421, 3992]
    assert sample[8:16].tolist() == list(range(570, 578))
    assert _spread(order, 5000).tolist() == list(range(4000))
