# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score

from tests.rounds.conftest import Trained
from tral_monai.data.triplet_source import TripletSource
from tral_monai.errors import ConfigError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.evaluate_handler import EvaluateHandler
from tral_monai.rounds.predictor import TripletPredictor


@pytest.fixture(scope="module")
def splits(tiles):
    return {name: tiles.split(name) for name in ("val", "test", "pool")}  # no slide is in split 'pool'


@pytest.fixture
def evaluate(make_tile_engine, tiles, checkpoint, splits, feature_dir):
    def run(*, splits=splits, recorded=None, model=checkpoint):
        handler = EvaluateHandler(TripletPredictor(feature_dir=feature_dir), splits, tiles.classes)
        engine = make_tile_engine(1, Trained(model, tiles.classes, recorded), handler)
        engine.run()
        return engine

    return run


def test_confusion_and_scores_of_each_split(evaluate, splits, tiles, checkpoint):
    engine = evaluate()
    metrics = engine.ledger.table("metrics")
    assert set(metrics["split"]) == {"val", "test"}
    assert set(metrics["round"]) == {1}
    names = list(tiles.classes)
    for split in ("val", "test"):
        table = splits[split]
        with torch.no_grad():
            logits = load_checkpoint(checkpoint)(torch.from_numpy(TripletSource().read(table)))
        predicted = [names[i] for i in logits.argmax(dim=1)]
        expected = confusion_matrix(table["class"], predicted, labels=names)
        assert engine.ledger.confusion(1, split, names) == expected.tolist()
        value = metrics[metrics["split"] == split].set_index("name")["value"]
        f1 = f1_score(table["class"], predicted, labels=names, average=None)
        np.testing.assert_allclose([value[f"{name}_f1"] for name in names], f1)
        assert value["f1_macro"] == pytest.approx(f1.mean())
        assert value["f1_micro"] == pytest.approx(np.trace(expected) / len(table))
        fnr = 1 - np.diag(expected) / expected.sum(axis=1)
        np.testing.assert_allclose([value[f"{name}_fnr"] for name in names], fnr)


def test_a_split_in_the_ledger_is_not_measured_again(evaluate, tiles):
    recorded = np.full((5, 5), 3).tolist()
    engine = evaluate(recorded=recorded)
    assert engine.ledger.confusion(1, "val", tiles.classes) == recorded
    assert engine.ledger.confusion(1, "test", tiles.classes) is not None


def test_a_class_that_the_network_does_not_have(evaluate, splits):
    strange = splits["val"].assign(**{"class": "Cartilage"})
    with pytest.raises(ConfigError, match=r"split 'val' has the classes \['Cartilage'\], which are not among"):
        evaluate(splits={"val": strange})


def test_a_round_without_a_model(evaluate):
    with pytest.raises(AssertionError, match="attach it before EvaluateHandler"):
        evaluate(model=None)
