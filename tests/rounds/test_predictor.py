# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pandas as pd
import pytest
import torch

from tests.rounds.conftest import BACKBONE
from tral_monai.data.triplet_source import TripletSource
from tral_monai.errors import CheckpointError
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.predictor import TripletPredictor


@pytest.fixture(scope="module")
def table(tiles) -> pd.DataFrame:
    """Seven tiles of both slides of the pool, the slides taking turns."""
    slides = [group["id"].tolist() for _, group in tiles.pool.groupby("slide")]
    ids = [slides[i % 2][-1 - i] for i in range(7)]
    return tiles.pool.set_index("id", drop=False).loc[ids]


@pytest.fixture(scope="module")
def by_hand(table, checkpoint):
    """Features and softmax probabilities, one tile at a time through the network."""
    network = load_checkpoint(checkpoint)
    features, probabilities = [], []
    with torch.no_grad():
        for i in range(len(table)):
            image = torch.from_numpy(TripletSource().read(table.iloc[[i]]))
            features.append(network.features(image)[0].numpy())
            logits = network(image)[0].double().numpy()
            probabilities.append(np.exp(logits) / np.exp(logits).sum())
    return np.stack(features), np.stack(probabilities)


def assert_same(predictions, expected):
    """To a hundredth of what tells the tiles apart: the random network's features are small."""
    np.testing.assert_allclose(predictions.features, expected[0], rtol=0, atol=0.01 * expected[0].std(axis=0).max())
    np.testing.assert_allclose(predictions.probabilities, expected[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_and_probabilities_of_each_row(table, checkpoint, by_hand, batch_size):
    predictions = TripletPredictor(batch_size=batch_size).predict(checkpoint, table)
    assert_same(predictions, by_hand)
    assert predictions.features.dtype == predictions.probabilities.dtype == np.float32
    # Another order of the rows would be seen.
    assert np.abs(np.diff(by_hand[1], axis=0)).max(axis=1).min() > 0.01


def test_more_features_than_one_pass_of_the_classifier(table, checkpoint, by_hand):
    # With batches of one tile the classifier takes 16 rows at a time.
    predictions = TripletPredictor(batch_size=1).predict(checkpoint, pd.concat([table] * 3))
    assert_same(predictions, [np.tile(array, (3, 1)) for array in by_hand])


def test_cached_features_give_the_same_and_are_read_again(table, checkpoint, by_hand, tmp_path):
    done = []
    predictor = TripletPredictor(feature_dir=tmp_path, progress=lambda *counts: done.append(counts))
    first = predictor.predict(checkpoint, table)
    assert_same(first, by_hand)
    assert done[-1] == (7, 7)
    done.clear()
    backwards = predictor.predict(checkpoint, table.iloc[::-1])
    assert done == []
    np.testing.assert_array_equal(backwards.features, first.features[::-1])
    np.testing.assert_allclose(backwards.probabilities, first.probabilities[::-1], rtol=1e-5, atol=1e-6)


def test_features_of_a_backbone_that_learns_are_not_kept(table, tiles, tmp_path):
    network = TriCNN(tiles.classes, backbone=BACKBONE, hidden=(), seed=1)
    path = save_checkpoint(tmp_path / "model.pt", network)
    done = []
    predictor = TripletPredictor(
        feature_dir=tmp_path / "features", batch_size=4, progress=lambda *counts: done.append(counts)
    )
    predictor.predict(path, table)
    assert not (tmp_path / "features").exists()
    assert sum(1 for _, total in done if total == 7) == len(done) >= 2
    assert done[-1] == (7, 7)


def test_a_checkpoint_that_was_replaced_is_loaded_again(table, tiles, tmp_path):
    predictor, path, results = TripletPredictor(), tmp_path / "model.pt", []
    for seed in (1, 2):
        save_checkpoint(path, TriCNN(tiles.classes, backbone=BACKBONE, hidden=(), frozen=True, seed=seed))
        os.utime(path, ns=(seed * 10**9, seed * 10**9))
        results.append(predictor.predict(path, table.iloc[:1]).probabilities)
    fresh = TripletPredictor().predict(path, table.iloc[:1]).probabilities
    assert np.abs(results[0] - fresh).max() > 1e-3
    np.testing.assert_allclose(results[1], fresh, rtol=1e-5)


def test_a_network_in_use_stays_in_memory(table, checkpoint):
    predictor = TripletPredictor()
    assert predictor._network(checkpoint) is predictor._network(checkpoint)


@pytest.mark.parametrize("cached", [False, True])
def test_no_samples(table, checkpoint, tmp_path, cached):
    predictions = TripletPredictor(feature_dir=tmp_path if cached else None).predict(checkpoint, table.iloc[:0])
    assert predictions.probabilities.shape == (0, 5)
    # The width is told even so: a strategy compares it with that of the pool's features.
    assert predictions.features.shape == (0, load_checkpoint(checkpoint).num_features)


def test_a_checkpoint_that_is_not_there(table, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none.pt"):
        TripletPredictor().predict(tmp_path / "none.pt", table)
