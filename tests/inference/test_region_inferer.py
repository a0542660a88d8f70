# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from tests.inference.colour_slides import PATTERN, ColourNet, slide_pixels, write_slide
from tests.inference.nuclei.disc_fields import DiscInferer, DiscNet, disc_boxes, draw_discs, scattered_discs
from tral_monai.errors import ConfigError, MissingMppError
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper
from tral_monai.inference.region_inferer import RegionDetector, RegionInferer, RegionPrediction
from tral_monai.inference.region_request import RegionRequestd
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.inference.tissue_mapper import TissueMapper

FULL = tuple(row.replace("SSS....", "SSSBBBB") for row in PATTERN)  # without the hole of glass
DISCS = scattered_discs((700, 500), 60, seed=5)


@pytest.fixture(scope="module")
def tissue_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("tissue") / "a.tif", slide_pixels(FULL))


@pytest.fixture(scope="module")
def nuclei_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("nuclei") / "n.tif", draw_discs((700, 500), DISCS))


def asked(path: Path, location: tuple[int, int] = (0, 0), size: tuple[int, int] = (0, 0)) -> MetaTensor:
    image: MetaTensor = RegionRequestd()({"image": str(path), "location": location, "size": size})["image"]
    return image[None]


def of_tissue(**settings: Any) -> RegionInferer:
    return RegionInferer(functools.partial(TissueMapper, batch_size=32), **settings)


def of_nuclei() -> RegionInferer:
    return RegionInferer(functools.partial(NucleusMapper, inferer=DiscInferer()))


def letters(prediction: RegionPrediction) -> list[str]:
    """The map as a pattern; what is not tissue is a dot."""
    assert isinstance(prediction.prediction, TissueMap)
    names = prediction.prediction.classes.names
    return [
        "".join("." if not value else names[value][0] for value in row) for row in prediction.prediction.class_index
    ]


def test_a_whole_slide(tissue_path: Path) -> None:
    (found,) = of_tissue()(asked(tissue_path), ColourNet())
    assert found.region_level0 is None
    assert letters(found) == list(FULL)
    assert found.colours == {}


def test_a_region_has_the_cells_whose_centre_lies_in_it(tissue_path: Path) -> None:
    # Columns 3 to 9 have their centre (448, 576, ... 1216) between 440 and 1220, rows 2 to 4 theirs (320, 448, 576)
    # between 300 and 600.
    network = ColourNet()
    (found,) = of_tissue()(asked(tissue_path, (440, 300), (780, 300)), network)
    expected = [
        "".join(key if 3 <= column <= 9 and 2 <= row <= 4 else "." for column, key in enumerate(keys))
        for row, keys in enumerate(FULL)
    ]
    assert letters(found) == expected
    assert sum(network.batch_sizes) == 7 + 7 + 7  # nothing else was looked at
    assert found.region_level0 == (440, 300, 780, 300)


def test_colours_are_the_networks(tissue_path: Path) -> None:
    network = ColourNet()
    network.class_colors = {"Stroma": (1, 2, 3)}
    (found,) = of_tissue()(asked(tissue_path, (0, 0), (10, 10)), network)
    assert found.colours == {"Stroma": (1, 2, 3)}


def test_the_tissue_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_slide(tmp_path / "a.tif", slide_pixels())
    made = []
    real = TissueMapper.tissue_mask
    monkeypatch.setattr(TissueMapper, "tissue_mask", lambda mapper, slide: made.append(slide) or real(mapper, slide))
    for x in (0, 512, 1024):
        of_tissue()(asked(path, (x, 256), (512, 128)), ColourNet())  # a new inferer each time, as MONAI Label has it
    assert len(made) == 1


@pytest.mark.parametrize("form", ["inferer", "detector"])
def test_nuclei_of_a_region_are_those_with_their_centre_in_it(nuclei_path: Path, form: str) -> None:
    image, network = asked(nuclei_path, (150, 100), (400, 300)), DiscNet()
    if form == "inferer":
        (found,) = of_nuclei()(image, network)
    else:
        detector = RegionDetector(of_nuclei())
        detector.network = network  # as MONAI Label does it
        (found,) = detector(image, use_inferer=True)
    nuclei = found.prediction
    assert isinstance(nuclei, NucleusMap)
    # A disc covers x - radius to x + radius, so the middle of its box is at x + 0.5.
    inside = [(x, y, r, c) for x, y, r, c in DISCS if 150 <= x + 0.5 < 550 and 100 <= y + 0.5 < 400]
    assert 10 < len(inside) < 50
    boxes = np.round(nuclei.boxes_level0).astype(int)
    assert {(*map(int, box), int(c)) for box, c in zip(boxes, nuclei.labels, strict=True)} == disc_boxes(inside)


def test_the_device_is_that_of_the_request(tissue_path: Path) -> None:
    devices = []

    def mapper(network: torch.nn.Module, *, device: torch.device) -> TissueMapper:
        devices.append(device)
        return TissueMapper(network, device="cpu")

    RegionInferer(mapper)(asked(tissue_path, (0, 0), (10, 10)), ColourNet())
    assert devices == [torch.device("cpu")]


def test_a_slide_without_mpp_needs_one(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", slide_pixels(("SS", "SS")), mpp=None)
    with pytest.raises(MissingMppError, match=r"a\.tif"):
        of_tissue()(asked(path), ColourNet())
    (found,) = of_tissue(mpp=0.25)(asked(path), ColourNet())
    assert found.prediction.mpp_xy == (0.25, 0.25)


def test_the_given_mpp_wins_only_where_it_shall(tissue_path: Path) -> None:
    (kept,) = of_tissue(mpp=0.5)(asked(tissue_path, (0, 0), (10, 10)), ColourNet())
    (given,) = of_tissue(mpp=0.5, override_mpp=True)(asked(tissue_path, (0, 0), (10, 10)), ColourNet())
    assert kept.prediction.mpp_xy == pytest.approx((0.25, 0.25))
    assert given.prediction.mpp_xy == (0.5, 0.5)


def test_what_cannot_be_run_is_said(tissue_path: Path) -> None:
    with pytest.raises(ConfigError, match="override_mpp needs the value to use"):
        of_tissue(override_mpp=True)
    with pytest.raises(ConfigError, match="use RegionRequestd as the preprocessing"):
        of_tissue()(torch.zeros(1, 9, 128, 128), ColourNet())
    with pytest.raises(ConfigError, match="lies outside of the slide"):
        of_tissue()(asked(tissue_path, (5000, 0), (10, 10)), ColourNet())
    with pytest.raises(ConfigError, match="needs a network; set its attribute 'network' first"):
        RegionDetector(of_nuclei())(asked(tissue_path))
