# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.colour_slides import break_tile, write_slide
from tests.inference.nuclei.disc_fields import (
    CLASSES,
    COLOURS,
    DiscInferer,
    DiscNet,
    disc_boxes,
    draw_discs,
    scattered_discs,
)
from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import CheckpointError, ConfigError, SlideReadError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.slides.slide import open_slide

GLASS = (250, 250, 250)


def find(
    path: Path, network: torch.nn.Module | None = None, *, mpp: float | None = 0.25, **settings: Any
) -> NucleusMap:
    settings.setdefault("inferer", DiscInferer())
    mapper = NucleusMapper(network or DiscNet(), **settings)
    with open_slide(path, mpp=mpp) as slide:
        return mapper.map_slide(slide)


def found(nuclei: NucleusMap) -> set[tuple[float, ...]]:
    boxes = {(*box, label) for box, label in zip(nuclei.boxes_level0.tolist(), nuclei.labels.tolist(), strict=True)}
    assert len(boxes) == len(nuclei)  # nothing twice
    return boxes


def save(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_every_nucleus_of_a_field_comes_once_and_whole(tmp_path: Path) -> None:
    discs = scattered_discs((700, 520), 150, seed=1)
    nuclei = find(save(tmp_path / "field.png", draw_discs((700, 520), discs)))
    assert found(nuclei) == disc_boxes(discs)
    assert nuclei.classes == CLASSES
    assert nuclei.score.tolist() == pytest.approx([0.9] * 150)
    # Eq. 4 with evidence 6 and 2: K = 2, Q = 7 + 3.
    assert nuclei.uncertainty.tolist() == pytest.approx([0.2] * 150)
    assert np.isnan(nuclei.distance_known).all()
    assert np.isnan(nuclei.distance_unknown).all()
    assert nuclei.analysed_mm2 == pytest.approx(700 * 520 * 0.0625 / 1e6)
    assert not nuclei.masked
    assert nuclei.cut_by_seams == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_same_nuclei_whatever_the_tiles(tmp_path: Path, seed: int) -> None:
    """Sizes of tiles and overlaps put the seams anywhere; the largest disc has 31 px."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(150, 500)), int(rng.integers(150, 500))
    discs = scattered_discs(size, 30, seed=seed)
    path = save(tmp_path / "field.png", draw_discs(size, discs))
    for _ in range(3):
        overlap = int(rng.integers(64, 90))
        tile = int(rng.integers(2 * overlap, 260))
        nuclei = find(
            path,
            tile_px=tile,
            overlap_px=overlap,
            batch_size=int(rng.integers(1, 9)),
            num_workers=int(rng.integers(0, 3)),
        )
        assert found(nuclei) == disc_boxes(discs), (tile, overlap)


def test_nuclei_on_a_seam_and_where_four_tiles_meet(tmp_path: Path) -> None:
    # Two tiles of 200 px share 100 to 200 and their cores meet at 150, in x and y.
    discs = [(150, 150, 15, 0), (150, 40, 15, 1), (149, 80, 15, 0), (151, 230, 15, 1), (40, 150, 15, 0)]
    path = save(tmp_path / "field.png", draw_discs((300, 300), discs))
    assert found(find(path, tile_px=200, overlap_px=100)) == disc_boxes(discs)


@pytest.mark.parametrize("jitter_px", [1.0, 1.5])
def test_boxes_that_differ_between_tiles_are_neither_lost_nor_doubled(tmp_path: Path, jitter_px: float) -> None:
    discs = [(x, y, 9, 0) for x in range(12, 590, 23) for y in range(12, 590, 23)]
    path = save(tmp_path / "field.png", draw_discs((600, 600), discs))
    nuclei = find(path, DiscNet(jitter_px=jitter_px))
    assert len(nuclei) == len(discs)
    centres = (nuclei.boxes_level0[:, :2] + nuclei.boxes_level0[:, 2:]) / 2 - 0.5
    nearest = np.abs(centres[:, None] - np.array([disc[:2] for disc in discs])).max(axis=2)
    assert (nearest.min(axis=0) <= jitter_px).all()  # every disc has its box


def test_a_nucleus_wider_than_the_overlap_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((360, 128), [(180, 64, 40, 0)]))
    nuclei = find(path, tile_px=200, overlap_px=40)
    assert nuclei.cut_by_seams > 0
    assert "give overlap_px at least the size of the largest nucleus (it is 40)" in nuclei.warnings[0]
    whole = find(path, tile_px=200, overlap_px=100)
    assert found(whole) == {(140.0, 24.0, 221.0, 105.0, 0)}
    assert whole.warnings == ()


def test_a_tile_with_as_many_nuclei_as_the_detector_gives_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((100, 80), [(20, 40, 8, 0), (50, 40, 8, 0), (80, 40, 8, 0)]))
    nuclei = find(path, DiscNet(max_detections=3))
    assert nuclei.warnings[0].startswith("1 tiles held as many nuclei as the detector gives per tile (3)")
    assert find(path, DiscNet(max_detections=4)).warnings == ()


def test_results_are_level_0_pixels_at_any_resolution(tmp_path: Path) -> None:
    """A detector of 0.5 um per pixel on an image of 0.25: it sees half the pixels, boxes come back in whole ones."""
    discs = [(100, 120, 20, 0), (300, 200, 24, 1), (420, 380, 16, 0)]
    path = save(tmp_path / "field.png", draw_discs((512, 512), discs))
    nuclei = find(path, DiscNet(fov_mpp=0.5, fov_px=128))
    assert sorted(nuclei.labels.tolist()) == [0, 0, 1]
    expected = np.array(sorted(box[:4] for box in disc_boxes(discs)))
    assert np.abs(np.array(sorted(nuclei.boxes_level0.tolist())) - expected).max() <= 3.0


def test_a_coarser_image_is_enlarged_and_that_is_told(tmp_path: Path) -> None:
    discs = [(50, 60, 10, 0), (150, 100, 12, 1)]
    path = save(tmp_path / "field.png", draw_discs((230, 190), discs))
    nuclei = find(path, mpp=0.5)
    expected = np.array(sorted(box[:4] for box in disc_boxes(discs)))
    assert np.abs(np.array(sorted(nuclei.boxes_level0.tolist())) - expected).max() <= 1.5
    assert "was enlarged to the 0.25" in nuclei.warnings[0]


def test_an_image_smaller_than_a_tile_is_seen_as_it_is(tmp_path: Path) -> None:
    network = DiscNet()
    path = save(tmp_path / "field.png", draw_discs((100, 80), [(50, 40, 10, 1)]))
    assert found(find(path, network)) == {(40.0, 30.0, 61.0, 51.0, 1)}
    assert network.seen == [(80, 100, 3)]


def test_only_tissue_is_looked_at_on_a_slide(tmp_path: Path) -> None:
    pixels = np.full((4096, 4096, 3), GLASS, dtype=np.uint8)
    discs = scattered_discs((1000, 900), 60, seed=3)
    pixels[512:1412, 768:1768] = draw_discs((1000, 900), discs)
    path = write_slide(tmp_path / "slide.tif", pixels)
    network = DiscNet()
    nuclei = find(path, network, mpp=None)
    assert nuclei.masked
    assert len(nuclei) == 60
    assert nuclei.counts()["tumour"] == sum(disc[3] == 0 for disc in discs)
    assert len(network.seen) == nuclei.tiles < 100  # of 21 x 21 = 441
    assert nuclei.analysed_mm2 == pytest.approx(1000 * 900 * 0.0625 / 1e6, rel=0.1)
    everything = find(path, mpp=None, use_mask="never")
    assert everything.tiles == 441
    assert everything.analysed_mm2 == pytest.approx(4096**2 * 0.0625 / 1e6)
    assert found(everything) == found(nuclei)


def test_an_image_without_tissue_has_no_nuclei(tmp_path: Path) -> None:
    path = save(tmp_path / "glass.png", np.full((600, 600, 3), 250, dtype=np.uint8))
    nuclei = find(path, use_mask="always")
    assert (len(nuclei), nuclei.tiles, nuclei.analysed_mm2) == (0, 0, 0.0)
    assert nuclei.boxes_level0.shape == (0, 4)
    assert len(find(path)) == 0  # a field is looked at as a whole, and has no nuclei either


def test_a_low_score_is_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((100, 80), [(50, 40, 10, 1)]))
    assert len(find(path, DiscNet(score=0.49))) == 0
    assert len(find(path, DiscNet(score=0.49), min_score=0.4)) == 1


class TwoClasses(DiscInferer):
    """The same detections, each with a box of the other class and a higher score over it."""

    def __call__(self, inputs: Any, network: torch.nn.Module) -> Detections:
        once = super().__call__(inputs, network)
        rows = np.repeat(np.arange(len(once.labels)), 2)
        second = np.arange(len(rows)) % 2
        return Detections(
            offsets=2 * once.offsets,
            boxes_px=once.boxes_px[rows] + second[:, None],
            labels=np.where(second == 1, 1 - once.labels[rows], once.labels[rows]),
            scores=once.scores[rows] + 0.05 * second,
        )


def test_a_nucleus_with_two_classes_has_its_best_one(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((100, 80), [(50, 40, 10, 1)]))
    nuclei = find(path, inferer=TwoClasses())
    assert nuclei.labels.tolist() == [0]
    assert nuclei.score.tolist() == pytest.approx([0.95])
    assert np.isnan(nuclei.uncertainty).all()  # no evidence, no uncertainty
    assert len(find(path, inferer=TwoClasses(), nms_iou=1.0)) == 2


def test_a_tile_that_cannot_be_decoded_costs_its_own_nuclei_only(tmp_path: Path) -> None:
    discs = scattered_discs((1024, 1024), 120, seed=5)
    path = write_slide(tmp_path / "slide.tif", draw_discs((1024, 1024), discs))
    before = find(path, mpp=None, use_mask="never")
    break_tile(path, 0, 5)  # 256 to 512 px in x and y
    nuclei = find(path, mpp=None, use_mask="never")
    assert nuclei.failures
    assert len(nuclei.failed_centres_level0) == nuclei.describe()["not_analysed"]["tiles"] > 0
    assert found(nuclei) < found(before)
    lost = found(before) - found(nuclei)
    assert all(100 < (box[0] + box[2]) / 2 < 668 and 100 < (box[1] + box[3]) / 2 < 668 for box in lost)
    assert nuclei.analysed_mm2 < before.analysed_mm2


def test_a_slide_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", draw_discs((256, 256), [(50, 40, 10, 1)]))
    break_tile(path, 0, 0)
    with pytest.raises(SlideReadError, match=r"slide\.tif: none of the 1 tiles to look at can be decoded"):
        find(path, mpp=None)


def test_progress_counts_tiles(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((600, 256), []))
    calls: list[tuple[int, int]] = []
    with open_slide(path, mpp=0.25) as slide:
        NucleusMapper(DiscNet(), inferer=DiscInferer(), batch_size=2).map_slide(
            slide, on_progress=lambda done, total: calls.append((done, total))
        )
    assert calls == [(0, 3), (2, 3), (3, 3)]


def test_names_and_colours_are_the_contracts(tmp_path: Path) -> None:
    mapper = NucleusMapper(DiscNet(fov_mpp=0.2, fov_px=320))
    assert (mapper.classes, mapper.colours) == (CLASSES, COLOURS)
    assert (mapper.fov_mpp, mapper.tile_px) == (0.2, 320)
    settings = mapper.settings()
    assert settings["classes"] == list(CLASSES)
    assert settings["colours"] == {"tumour": [200, 0, 0], "lymphocyte": [0, 90, 200]}


class Answers(DiscInferer):
    """Gives what it was made with."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __call__(self, inputs: Any, network: torch.nn.Module) -> Detections:
        return Detections(**self.columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"offsets": [0, 0, 0], "boxes_px": np.empty((0, 4)), "labels": [], "scores": []}, "answer for 1 tiles"),
        (
            {"offsets": [0, 1], "boxes_px": [[0, 0, 9, 9]], "labels": [2], "scores": [0.9]},
            "labels 0 to 1, .* gave 2 to 2",
        ),
        ({"offsets": [0, 1], "boxes_px": [[0, 0, np.nan, 9]], "labels": [1], "scores": [0.9]}, "are not finite"),
    ],
)
def test_an_answer_that_cannot_be_is_an_error(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "field.png", draw_discs((100, 80), []))
    arrays = {
        name: np.asarray(value, dtype=np.int64 if name in ("offsets", "labels") else np.float32)
        for name, value in columns.items()
    }
    with pytest.raises(CheckpointError, match=message):
        find(path, inferer=Answers(**arrays))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, but is 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, but is -1"),
        ({"read_ahead": -1}, "read_ahead must be 0 or more, but is -1"),
        ({"min_score": 1.5}, r"min_score must lie between 0 and 1, but is 1\.5"),
        ({"nms_iou": -0.1}, "nms_iou must lie between 0 and 1"),
        ({"min_tissue_coverage": 2.0}, "min_tissue_coverage must lie between 0 and 1"),
        ({"use_mask": "maybe"}, "use_mask must be 'auto', 'always' or 'never', but is 'maybe'"),
        ({"tissue_method": "otsu"}, "tissue_method must be 'auto' or 'paper', but is 'otsu'"),
        ({"overlap_px": 200}, r"overlap_px must lie between 0 and half of tile_px \(256\), but is 200"),
        ({"known_only": True}, "known_only needs the auxiliary detector's prototypes"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NucleusMapper(DiscNet(), **settings)


def test_a_detector_of_another_role_is_refused() -> None:
    network = DiscNet()
    network.role = "prototype"
    with pytest.raises(ConfigError, match="of the role 'target', but this one has 'prototype'"):
        NucleusMapper(network)


def test_known_only_without_a_prototype_of_unknown_nuclei_is_refused(
    detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    # It kept every nucleus, without a word: the distance to a prototype that nothing has shaped is infinite.
    blind = copy.deepcopy(auxiliary)
    assert blind.prototypes is not None
    blind.prototypes.ready[1] = False
    with pytest.raises(ConfigError, match="known_only needs a prototype of unknown nuclei"):
        NucleusMapper(detector, blind, known_only=True)
    assert NucleusMapper(detector, auxiliary, known_only=True).known_only


@pytest.mark.parametrize("jitter_px", [0.0, 1.5])
def test_a_region_gives_what_the_whole_image_gives_there(tmp_path: Path, jitter_px: float) -> None:
    """Crowded discs, tiles whose boxes differ, and regions anywhere: the nuclei are those of the whole image."""
    discs = [(x, y, 9, (x + y) % 2) for x in range(12, 690, 23) for y in range(12, 590, 23)]
    path = save(tmp_path / "field.png", draw_discs((700, 600), discs))
    mapper = NucleusMapper(DiscNet(jitter_px=jitter_px), inferer=DiscInferer(), tile_px=180, use_mask="never")
    rng = np.random.default_rng(5)
    with open_slide(path, mpp=0.25) as slide:
        whole = mapper.map_slide(slide)
        centres = (whole.boxes_level0[:, :2] + whole.boxes_level0[:, 2:]) / 2
        for _ in range(12):
            x, y = (int(value) for value in rng.integers(0, 500, 2))
            width, height = (int(value) for value in rng.integers(30, 300, 2))
            part = mapper.map_slide(slide, region_level0=(x, y, width, height))
            inside = ((centres >= [x, y]) & (centres < [x + width, y + height])).all(axis=1)
            expected = {
                (*box, label)
                for box, label in zip(whole.boxes_level0[inside].tolist(), whole.labels[inside].tolist(), strict=True)
            }
            assert len(expected) > 0
            assert found(part) == expected, (x, y, width, height)
            assert part.tiles < whole.tiles
            shown = (min(x + width, 700) - x) * (min(y + height, 600) - y)
            assert part.analysed_mm2 == pytest.approx(shown * 0.0625 / 1e6)


def test_a_region_at_another_resolution_lies_where_it_says(tmp_path: Path) -> None:
    discs = [(100, 100, 10, 0), (300, 100, 10, 1), (100, 300, 10, 1)]
    pixels = draw_discs((400, 400), discs).repeat(2, axis=0).repeat(2, axis=1)
    path = save(tmp_path / "field.png", pixels)
    mapper = NucleusMapper(DiscNet(), inferer=DiscInferer())
    with open_slide(path, mpp=0.125) as slide:
        part = mapper.map_slide(slide, region_level0=(500, 100, 200, 200))
    assert part.labels.tolist() == [1]
    assert np.abs(part.boxes_level0[0] - [580, 180, 622, 222]).max() <= 4


def test_a_mask_that_is_there_is_used_where_a_mask_is_wanted(tmp_path: Path) -> None:
    discs = [(100, 100, 10, 0), (600, 100, 10, 1)]
    path = save(tmp_path / "field.png", draw_discs((700, 200), discs))
    with open_slide(path, mpp=0.25) as slide:
        wanted = NucleusMapper(DiscNet(), inferer=DiscInferer(), use_mask="always")
        mask = wanted.tissue_mask(slide)
        mask.mask[:] = False
        assert len(wanted.map_slide(slide, mask=mask)) == 0
        never = NucleusMapper(DiscNet(), inferer=DiscInferer(), use_mask="never")
        assert len(never.map_slide(slide, mask=mask)) == 2
    assert wanted.uses_mask(slide)
    assert not never.uses_mask(slide)
    assert not NucleusMapper(DiscNet()).uses_mask(slide)  # 175 um are a field


def test_a_region_outside_of_the_image_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", draw_discs((100, 100), []))
    with open_slide(path, mpp=0.25) as slide, pytest.raises(ConfigError, match="lies outside of the slide"):
        NucleusMapper(DiscNet(), inferer=DiscInferer()).map_slide(slide, region_level0=(200, 0, 10, 10))


def test_an_engine_is_compared_on_tiles_with_nuclei_and_again_after_a_reset(
    tmp_path: Path, detector: OpenSetRCNN, without_log: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "field.png", draw_discs((640, 128), scattered_discs((640, 128), 50, seed=3)))
    mapper = NucleusMapper(
        detector, engine=EngineSettings(precision="bf16", min_agreement=0.5, agreement_tiles=2), use_mask="never"
    )
    assert mapper.runtime()["agreement"] is None
    with open_slide(path, mpp=0.25) as slide:
        mapper.map_slide(slide)
        told = mapper.runtime()["agreement"]
        # Two tiles hold fewer than 50 nuclei, so that more are drawn, eight at most.
        assert 2 < told["tiles"] <= 8
        assert told["boxes_reference"] >= 20
        assert told["min_agreement"] == 0.5
        assert told["full"]
        assert "torch bf16 finds" in capsys.readouterr().err
        fast = mapper._fast
        assert fast is not None
        assert fast.backbone._batch_size == mapper.batch_size == 8
        mapper.reset()
        assert (mapper.agreement, mapper._fast) == (None, None)
        mapper.map_slide(slide)
    assert mapper._fast is not fast
    assert mapper.agreement is not None
