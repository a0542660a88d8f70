# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from shapely.geometry import box

from tests.inference.colour_slides import break_tile
from tests.rounds.regions.colour_site import BACKBONE, make_slides, record, tissue_site
from tral_monai.data.triplet_source import TripletSource
from tral_monai.errors import CheckpointError, PoolError, StrategyError
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.tissue_outputs import region_tiles, tissue_outputs
from tral_monai.strategies.registry import get_strategy

CLASSES = ("Stroma", "Muscle", "Blood")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A frozen network with random weights."""
    network = TriCNN(CLASSES, backbone=BACKBONE, hidden=(), frozen=True, seed=0).eval()
    return save_checkpoint(tmp_path_factory.mktemp("model") / "given.pt", network)


@pytest.fixture
def task(tmp_path, model):
    """Three slides with 12 regions of two by two tiles each, and a model from elsewhere."""
    return tissue_site(make_slides(tmp_path / "studies"), tissue_checkpoint=str(model))


def outputs(task, strategy, candidates):
    with task.ledger() as ledger:
        return tissue_outputs(task, strategy, candidates, ledger)


def test_a_region_of_two_by_two_tiles_has_their_centres():
    table = pd.DataFrame([("a", 256, 256, 256, 256, 0.25, 511)], columns=COLUMNS)
    tiles = region_tiles(table, {"a": (1024, 768)})
    assert {tuple(xy) for xy in tiles[["x_level0", "y_level0"]].to_numpy().tolist()} == {
        (x, y) for x in (320, 448) for y in (320, 448)
    }
    assert (tiles["region"] == 0).all()
    assert (tiles["slide_mpp"] == 0.25).all()


COLUMNS = ["slide", "x_level0", "y_level0", "width_level0", "height_level0", "mpp", "cells"]


def test_tiles_spread_over_a_large_region_and_only_over_its_tissue():
    # Parts of 1024 / 3 px have their centres in tiles 1, 4 and 6 of 128 px; the middle row alone is tissue.
    table = pd.DataFrame([("a", 0, 0, 1024, 1024, 0.25, 0b000_111_000)], columns=COLUMNS)
    tiles = region_tiles(table, {"a": (1024, 1024)})
    assert tiles[["x_level0", "y_level0"]].to_numpy().tolist() == [[192, 576], [576, 576], [832, 576]]


@pytest.mark.parametrize("bits", [0, 511])
def test_a_region_smaller_than_a_tile_has_centres_inside(bits):
    table = pd.DataFrame([("a", 10, 20, 30, 30, 0.25, bits)], columns=COLUMNS)
    tiles = region_tiles(table, {"a": (40, 50)})
    assert len(tiles) == (9 if bits else 1)
    assert tiles["x_level0"].between(10, 39).all()
    assert tiles["y_level0"].between(20, 49).all()


def test_a_region_is_the_mean_of_its_tiles(task, model):
    candidates = candidate_regions(task).iloc[[3, 17]].reset_index(drop=True)
    found = outputs(task, get_strategy("clue"), candidates)
    network = load_checkpoint(model)
    for row, region in candidates.iterrows():
        x, y = region["x_level0"], region["y_level0"]
        tiles = [(x + dx, y + dy) for dy in (64, 192) for dx in (64, 192)]
        table = pd.DataFrame(tiles, columns=["x_level0", "y_level0"]).assign(
            slide_path=str(task.site.studies / region["slide"]), slide_mpp=0.25
        )
        with torch.no_grad():
            images = torch.from_numpy(TripletSource().read(table))
            features, softmax = network.features(images), network(images).softmax(dim=1)
        np.testing.assert_allclose(found.outputs.features[row], features.mean(dim=0), atol=1e-4)
        np.testing.assert_allclose(found.outputs.probabilities[row], softmax.mean(dim=0), atol=1e-4)
        assert found.class_predicted[row] == CLASSES[int(softmax.mean(dim=0).argmax())]
    assert found.outputs.ids.tolist() == candidates["id"].tolist()
    assert found.outputs.class_names == CLASSES
    assert found.outputs.pool_classes is None  # only what the strategy wants
    assert list((task.folder / "features").rglob("*.npz"))


def test_the_pool_of_a_class_is_what_is_predicted_as_it(task):
    with task.ledger() as ledger:
        ledger.record_model(1, ModelRecord("model.pt", "", 1.0, 1, None))
        ledger.record_evaluation(1, "val", {}, [[8, 1, 1], [2, 2, 0], [0, 0, 0]], CLASSES)
    candidates = candidate_regions(task).iloc[:4]
    found = outputs(task, get_strategy("tri_al_iter"), candidates)
    assert [CLASSES[c] for c in found.outputs.pool_classes] == found.class_predicted
    assert found.outputs.false_negatives.tolist() == [2, 2, 0]
    assert found.outputs.positives.tolist() == [10, 4, 0]
    entropy = outputs(task, get_strategy("tri_al_entropy"), candidates)
    expected = [found.class_predicted.count(name) for name in CLASSES]
    assert entropy.outputs.class_distribution.tolist() == expected


def test_errors_are_those_of_the_model_that_is_in_use(task):
    with task.ledger() as ledger:
        ledger.record_model(1, ModelRecord("model.pt", "", 1.0, 1, None))
        ledger.record_evaluation(1, "val", {}, [[8, 1, 1], [2, 2, 0], [0, 0, 0]], CLASSES)
        ledger.record_evaluation(1, "val_previous", {}, [[10, 0, 0], [3, 1, 0], [0, 0, 0]], CLASSES)
        ledger.record_info({"published_round_1": False})
    found = outputs(task, get_strategy("tri_al_iter"), candidate_regions(task).iloc[:4])
    assert found.outputs.false_negatives.tolist() == [0, 3, 0]


def test_what_was_labelled_comes_from_the_answers_to_train_on(task):
    large, small = box(0, 0, 200, 200), box(9, 9, 99, 99)
    record(task, Region("a.tif", 0, 0, 256, 256), "train", ("Stroma", large), ("Stroma", small))
    record(task, Region("b.tif", 0, 0, 256, 256), "train", ("Stroma", large), ("Blood", small))
    record(task, Region("gone.tif", 0, 0, 256, 256), "train", ("Muscle", large))
    record(task, Region("c.tif", 0, 0, 256, 256), "val", ("Blood", large))
    with task.ledger() as ledger:
        ledger.record_evaluation(0, "val", {}, [[1, 0, 0]] * 3, CLASSES)
    candidates = candidate_regions(task).iloc[:2]
    found = outputs(task, get_strategy("tri_al_quota", diversity="kcenter"), candidates).outputs
    assert found.labelled_counts.tolist() == [2, 1, 1]  # regions in which each class was drawn
    assert len(found.labelled_features) == 2  # the slide that is gone cannot be read
    # Slides a and b look alike, and so do their upper left regions, of which one is a candidate.
    np.testing.assert_allclose(found.labelled_features[0], found.features[0], atol=1e-4)


def test_nothing_is_run_for_a_strategy_that_needs_nothing(tmp_path):
    task = tissue_site(make_slides(tmp_path / "studies"))
    found = outputs(task, get_strategy("random"), candidate_regions(task))
    assert len(found.outputs.ids) == 36
    assert found.class_predicted == [""] * 36
    assert not (task.folder / "features").exists()


def test_a_slide_that_breaks_is_left_out(task, caplog):
    candidates = candidate_regions(task)
    break_tile(task.site.studies / "b.tif", level=0, tile=0)
    with caplog.at_level(logging.WARNING):
        found = outputs(task, get_strategy("uncertainty"), candidates)
    assert found.outputs.ids.tolist() == candidates[candidates["slide"] != "b.tif"]["id"].tolist()
    assert "12 regions of b.tif are left out" in caplog.text


def test_nothing_left_to_read(task):
    candidates = candidate_regions(task)
    for file in task.site.studies.glob("*.tif"):
        file.unlink()
    with pytest.raises(PoolError, match="none of the 36 regions could be read"):
        outputs(task, get_strategy("uncertainty"), candidates)


def test_a_strategy_that_needs_a_model(tmp_path):
    task = tissue_site(make_slides(tmp_path / "studies"))
    with pytest.raises(StrategyError, match="uncertainty needs a trained model, and there is none yet; train first"):
        outputs(task, get_strategy("uncertainty"), candidate_regions(task))


def test_a_strategy_that_needs_held_out_regions(task):
    with pytest.raises(StrategyError, match="tri_al_quota goes by the model's errors on held-out regions, and round 0"):
        outputs(task, get_strategy("tri_al_quota"), candidate_regions(task))


def test_a_model_of_other_classes(tmp_path, model):
    task = tissue_site(make_slides(tmp_path / "studies"), tissue_checkpoint=str(model), tissue_classes="Stroma, Muscle")
    with pytest.raises(CheckpointError, match=r"given.pt knows 3 classes, but the task 2: \['Stroma', 'Muscle'\]"):
        outputs(task, get_strategy("uncertainty"), candidate_regions(task))
