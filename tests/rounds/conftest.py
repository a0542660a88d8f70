# SPDX-License-Identifier: Apache-2.0
import pandas as pd
import pytest

from tral_monai.data.pool import Pool
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import Ledger

CLASSES = ("Blood", "Muscle", "Stroma")


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
