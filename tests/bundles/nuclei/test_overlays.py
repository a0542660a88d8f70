# SPDX-License-Identifier: Apache-2.0
"""Overlays load on top of the configuration that they are for, and select what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from tests.bundles.bundle_files import NUCLEI, meant_for, read
from tests.bundles.nuclei.disc_fields import ACTIVE_LEARNING, TRAIN
from tral_monai.annotations.nuclei.data_sets import OPEN_SETS, known_classes
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.strategies.registry import strategy_names

FOLDER = NUCLEI.overlay_folder


def parser(*overlays: str, config: Path = ACTIVE_LEARNING, **overrides: Any) -> ConfigParser:
    parsed = ConfigParser()
    parsed.read_config([str(config), *(str(FOLDER / f"{name}.yaml") for name in overlays)])
    parsed.update({"bundle_root": str(NUCLEI.folder), **overrides})
    parsed.parse(reset=True)
    return parsed


@pytest.mark.parametrize("path", NUCLEI.overlays, ids=lambda path: path.stem)
def test_it_loads_with_the_configuration_that_it_is_for(path):
    for config in meant_for(path):
        parsed = parser(path.stem, config=config)
        assert {name: parsed.get_parsed_content(name) for name in read(path)} == read(path)


@pytest.mark.parametrize("name", strategy_names("nuclei"))
def test_an_arm_selects_its_strategy(name):
    strategy = parser("cpu", "consep", name).get_parsed_content("chosen_strategy")
    assert strategy.name == name
    assert strategy.task in ("nuclei", "any")


def test_the_small_detector_is_one():
    settings = {"classes": ["a", "b"], "pretrained_path": None, "device": "$torch.device('cpu')"}
    network = parser("cpu", config=TRAIN, **settings).get_parsed_content("network_def")
    assert isinstance(network, OpenSetRCNN)
    assert sum(value.numel() for value in network.parameters()) < 6e6


def test_the_papers_runs():
    settings = read(ACTIVE_LEARNING) | read(FOLDER / "paper.yaml")
    # Tang et al., section 3: five random folds, 5 % to begin with, 15 % a round: 5, 20, 35, 50, 65, 80 %.
    assert (settings["dataset"], settings["class_level"]) == ("nucls", "paper")
    assert (settings["folds"], settings["group_by"]) == (5, "image")
    assert (settings["initial_fraction"], settings["query_fraction"], settings["rounds"]) == (0.05, 0.15, 6)
    # Section 2: Faster R-CNN with ResNet-50; evidence is the ReLU of a usual class head's output.
    assert (settings["head"], settings["backbone"]) == ("softmax", "torchvision:resnet50")
    # The prototypes live among the RoI features themselves, and their loss is added as it is.
    assert settings["network_options"] == {"projection": None, "prototype_weight": 1.0}
    assert settings["strategy"] == "osal_nd"
    assert settings["budget"] is None
    assert settings["initial_count"] is None


def test_the_papers_table_of_classes():
    # Tang et al., Table 1.
    assert set(known_classes("nucls", "5+2")) == {"Tum", "Lym", "Str", "Pla", "Mit"}
    assert set(OPEN_SETS["nucls"]) == {"5+2", "4+3", "3+4"}


def test_an_overlay_for_a_data_set_suits_it():
    assert read(FOLDER / "consep.yaml")["dataset"] == "consep"
    assert read(FOLDER / "nucls.yaml")["fov_mpp"] == 0.2
    # The paper divides fields at random; the overlay for NuCLS does not put one hospital on both sides.
    assert read(FOLDER / "nucls.yaml")["group_by"] == "hospital"
