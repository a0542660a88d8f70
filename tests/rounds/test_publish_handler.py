# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from tests.rounds.conftest import Scores
from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEvents
from tral_monai.rounds.publish_handler import PublishHandler


@pytest.mark.parametrize(
    ("which", "scores", "published"),
    [
        ("best", (0.5, 0.8, 0.7), 2),
        ("best", (0.8, 0.7, 0.8), 3),
        ("best", (0.8, math.nan, 0.7), 1),
        ("last", (0.5, 0.8, 0.7), 3),
    ],
)
def test_which_round_is_published(make_engine, tmp_path, which, scores, published):
    (tmp_path / ".part-0123456789ab-model.pt").write_bytes(b"of a killed run")
    engine = make_engine(3, Scores(*scores), PublishHandler(which))
    engine.run()
    assert (tmp_path / "model.pt").read_bytes() == b"model of round %d" % published
    assert engine.ledger.info()["published_round"] == published
    assert not list(tmp_path.glob(".part-*"))


def test_best_by_another_metric_and_split(make_engine, tmp_path):
    engine = make_engine(2, Scores(0.8, 0.7, name="map50"), PublishHandler(metric="map50", split="val"))
    engine.run()
    assert engine.ledger.info()["published_round"] == 1
    # Where that was never measured, every round is as good as any, and the latest is kept.
    PublishHandler(metric="f1_macro")(engine)
    assert engine.ledger.info()["published_round"] == 2


def test_of_other_files_the_newest_is_kept_beside(make_engine, tmp_path):
    class Auxiliary:
        """Rounds 1 and 2 have one, the last has none."""

        def attach(self, engine):
            engine.add_event_handler(RoundEvents.TRAINED, self)

        def __call__(self, engine):
            if engine.round < 3:
                engine.round_dir.mkdir(parents=True, exist_ok=True)
                (engine.round_dir / "auxiliary.pt").write_bytes(b"auxiliary of round %d" % engine.round)

    make_engine(3, Scores(0.8, 0.7, 0.6), Auxiliary(), PublishHandler("best", also=["auxiliary.pt"])).run()
    assert (tmp_path / "auxiliary.pt").read_bytes() == b"auxiliary of round 2"
    assert (tmp_path / "model.pt").read_bytes() == b"model of round 1"


def test_unknown_rule():
    with pytest.raises(ConfigError, match="'best' or 'last', but is 'first'"):
        PublishHandler("first")
