# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from tral_monai.data.pool import Pool
from tral_monai.data.run_index import RunIndex
from tral_monai.data.triplet_source import TripletSource
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import Ledger

CLASSES = ("Blood", "Muscle", "Stroma")
BACKBONE = "timm:mobilenetv3_small_050"


@pytest.fixture
def index() -> pd.DataFrame:
    """Twelve tiles: Blood 0-1, Muscle 2-5, Stroma 6-11; Stroma's last two are in split 'pool'."""
    names = ["Blood"] * 2 + ["Muscle"] * 4 + ["Stroma"] * 6
    return pd.DataFrame(
        {
            "id": range(12),
            "slide": "a.tif",
            "x_level0": [64 + 128 * i for i in range(12)],
            "y_level0": 64,
            "class": names,
            "split": ["train"] * 10 + ["pool"] * 2,
        }
    )


@pytest.fixture
def make_engine(tmp_path, index):
    """A round engine over the index with a ledger in a temporary folder."""

    def make(rounds, *handlers, seed=0) -> RoundEngine:
        ledger = Ledger(tmp_path / "ledger.sqlite")
        return RoundEngine(rounds, Pool(index["id"].to_numpy()), ledger, tmp_path, seed=seed, handlers=handlers)

    return make


class Scores:
    """A training and evaluation whose macro F1 on val in each round is given."""

    def __init__(self, *values: float, name: str = "f1_macro") -> None:
        self._values, self._name = values, name

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.TRAINED, self)

    def __call__(self, engine):
        engine.model_path = engine.round_dir / "model.pt"
        engine.round_dir.mkdir(parents=True, exist_ok=True)
        engine.model_path.write_bytes(b"model of round %d" % engine.round)
        value = self._values[engine.round - 1]
        engine.ledger.record_evaluation(engine.round, "val", {self._name: value}, [[1]], ["x"])


@pytest.fixture(scope="session")
def tiles(tiny_cohort, tmp_path_factory) -> RunIndex:
    """Real tiles: two slides in the pool, one for validation and one for the test, five classes."""
    return RunIndex(tiny_cohort, tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="session")
def checkpoint(tiles, tmp_path_factory) -> Path:
    """A frozen network with random weights whose logits have mean 0 and deviation 1: it predicts several classes."""
    network = TriCNN(tiles.classes, backbone=BACKBONE, hidden=(), frozen=True, seed=0).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(TripletSource().read(tiles.pool)))
        network.head[-1].weight /= logits.std(dim=0, keepdim=True).T
        network.head[-1].bias.copy_(-(logits.mean(dim=0) - network.head[-1].bias) / logits.std(dim=0))
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.pt", network)


@pytest.fixture(scope="session")
def feature_dir(tmp_path_factory) -> Path:
    """Features of the frozen network, computed once for all tests of this folder."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make_tile_engine(tmp_path, tiles):
    """A round engine over the real tiles' pool with a ledger in a temporary folder."""

    def make(rounds, *handlers, seed=0) -> RoundEngine:
        ledger = Ledger(tmp_path / "ledger.sqlite")
        return RoundEngine(rounds, Pool(tiles.pool["id"].to_numpy()), ledger, tmp_path, seed=seed, handlers=handlers)

    return make


class Trained:
    """A training that gives a checkpoint made before, and an evaluation on val with a given confusion matrix."""

    def __init__(self, path: Path | None, classes: tuple[str, ...], confusion: list[list[int]] | None) -> None:
        self._path, self._classes, self._confusion = path, classes, confusion

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self)

    def __call__(self, engine):
        engine.model_path = self._path
        if self._confusion is not None:
            engine.ledger.record_evaluation(engine.round, "val", {}, self._confusion, self._classes)
