# SPDX-License-Identifier: Apache-2.0
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.rounds.conftest import BACKBONE
from tral_monai.data.triplet_source import TripletSource
from tral_monai.errors import ConfigError
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.initial_labels import InitialLabels
from tral_monai.rounds.ledger import LabelRow
from tral_monai.rounds.oracles import ArchiveOracle, NoisyOracle
from tral_monai.rounds.train_handler import TrainHandler

TRAIN = Path(__file__).parents[2] / "bundles" / "pathology_multiscale_tissue_classification" / "configs" / "train.yaml"


@pytest.fixture
def train(tiles, feature_dir):
    """The bundle's training of a linear classifier on cached features; one epoch in which no step is taken."""

    def make(*, overrides=(), val=None, config=TRAIN, **options):
        settings = {
            "bundle_root": str(TRAIN.parents[1]),
            "classes": list(tiles.classes),
            "backbone": BACKBONE,
            "hidden": [],
            "frozen": True,
            "feature_dir": str(feature_dir),
            "device": "cpu",
            "max_epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.0,
            "augment": False,
            "verbose": False,
            **dict(overrides),
        }
        return TrainHandler(
            config, tiles.pool, tiles.split("val") if val is None else val, overrides=settings, **options
        )

    return make


@pytest.fixture
def first(tiles):
    return InitialLabels(tiles.pool, ArchiveOracle(tiles.pool, tiles.classes), tiles.classes, per_class=1)


def head(path):
    return load_checkpoint(path).state_dict()["head.1.weight"]


def test_it_trains_on_the_classes_that_the_oracle_gave(make_tile_engine, tiles, checkpoint, train):
    # Every class is taken for the next one.
    wrong = torch.roll(torch.eye(5), 1, dims=1).tolist()
    oracle = NoisyOracle(ArchiveOracle(tiles.pool, tiles.classes), 5, confusion=wrong)
    first = InitialLabels(tiles.pool, oracle, tiles.classes, per_class=2)
    engine = make_tile_engine(1, first, train(overrides={"max_epochs": 2, "learning_rate": 1e-2}))
    engine.run()
    samples = pd.read_parquet(engine.round_dir / "train.parquet")
    labels = engine.ledger.labels()
    assert samples["id"].tolist() == sorted(labels["sample_id"])
    truth = tiles.pool.set_index("id")["class"].loc[samples["id"]]
    following = dict(zip(tiles.classes, (*tiles.classes[1:], tiles.classes[0]), strict=True))
    assert samples["class"].tolist() == [following[name] for name in truth]

    record = engine.ledger.model(1)
    assert record.path == "rounds/round_001/model.pt"
    assert engine.model_path == engine.output_dir / record.path
    assert record.epochs == 2
    assert record.seconds > 0
    val = tiles.split("val")
    network = load_checkpoint(engine.model_path)
    assert network.classes == tiles.classes
    target = torch.tensor([tiles.classes.index(name) for name in val["class"]])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(TripletSource().read(val))), target)
    assert record.val_loss == pytest.approx(float(loss), rel=1e-3)


def test_only_labels_of_earlier_rounds_that_were_given(make_tile_engine, tiles, first, train):
    engine = make_tile_engine(2, first, train())
    first(engine)
    left = engine.pool.unlabelled[:3].tolist()
    rows = [LabelRow(i, "a.tif", 0, 0, name, 1.0, 0.1) for i, name in zip(left, ["Blood", None, "Muscle"], strict=True)]
    engine.ledger.record_labels(1, rows)
    engine.run()
    folders = [engine.output_dir / "rounds" / f"round_00{r}" for r in (1, 2)]
    trained_on = [set(pd.read_parquet(folder / "train.parquet")["id"]) for folder in folders]
    initial = set(engine.ledger.labels(before_round=1)["sample_id"])
    assert trained_on == [initial, initial | {left[0], left[2]}]


def test_a_recorded_model_is_kept_and_a_changed_one_trained_again_to_the_same(
    make_tile_engine, first, train, caplog, feature_dir
):
    engine = make_tile_engine(1, first, train(overrides={"learning_rate": 1e-2, "max_epochs": 2}))
    engine.run()
    path, record = engine.model_path, engine.ledger.model(1)
    written = path.stat().st_mtime_ns
    engine.run()
    assert engine.model_path == path
    assert path.stat().st_mtime_ns == written
    assert engine.ledger.model(1) == record
    assert not caplog.records

    path.write_bytes(b"half a model")
    (path.parent / "left_by_a_killed_training.pt").write_bytes(b"")
    engine.run()
    assert engine.ledger.model(1).sha256 == record.sha256
    assert engine.ledger.model(1).val_loss == record.val_loss
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.pt", "train.parquet", "val.parquet"]
    assert "is missing or changed since it was recorded; training round 1 again" in caplog.text

    path.unlink()
    engine.run()
    assert engine.ledger.model(1).sha256 == record.sha256


def test_a_round_begins_from_the_model_before_it(make_tile_engine, first, train, checkpoint):
    engine = make_tile_engine(2, first, train(initial_checkpoint=str(checkpoint)))
    engine.run()
    before = engine.output_dir / "rounds" / "round_001" / "model.pt"
    assert torch.equal(head(before), head(checkpoint))
    assert torch.equal(head(engine.model_path), head(checkpoint))


def test_a_round_begins_anew_without_warm_start(make_tile_engine, first, train):
    engine = make_tile_engine(2, first, train(warm_start=False))
    engine.run()
    before = engine.output_dir / "rounds" / "round_001" / "model.pt"
    assert not torch.allclose(head(engine.model_path), head(before))  # another seed in each round


def test_every_round_begins_from_the_initial_checkpoint_without_warm_start(
    make_tile_engine, first, train, tiles, tmp_path
):
    network = TriCNN(tiles.classes, backbone=BACKBONE, hidden=(), dropout=0.0, frozen=True, seed=0)
    initial = save_checkpoint(tmp_path / "initial.pt", network)
    options = {"warm_start": False, "initial_checkpoint": str(initial)}
    # One step on all labels at once without dropout: no seed matters, and both rounds take the same step.
    engine = make_tile_engine(2, first, train(overrides={"learning_rate": 1.0, "dropout": 0.0}, **options))
    engine.run()
    one, two = (head(engine.output_dir / "rounds" / f"round_00{r}" / "model.pt") for r in (1, 2))
    step = (one - head(initial)).norm()
    assert step > 0
    assert (two - one).norm() < 1e-3 * step


def test_an_overlay_changes_the_configuration(make_tile_engine, first, train, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("val_interval: 2\n")
    handler = train(config=[str(TRAIN), str(overlay)], overrides={"max_epochs": 2, "train#dataloader#shuffle": False})
    engine = make_tile_engine(1, first, handler)
    engine.run()
    assert engine.ledger.model(1).epochs == 2


def test_a_training_that_saves_no_model(make_tile_engine, first, train):
    engine = make_tile_engine(1, first, train(overrides={"validate#handlers": ["@validate#early_stop"]}))
    with pytest.raises(ConfigError, match="training left no model.pt in .*round_001; its configuration must save"):
        engine.run()
    assert logging.root.manager.disable == logging.NOTSET  # the log is back after a quiet training that failed


def test_nothing_to_train_on(make_tile_engine, train):
    with pytest.raises(ConfigError, match="round 1 has no label to train on; attach InitialLabels first"):
        make_tile_engine(1, train()).run()


def test_no_configuration(train, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no configuration \['.*none.yaml'\]; expected YAML or JSON files"):
        train(config=[TRAIN, tmp_path / "none.yaml"])


def test_no_validation_tiles(tiles, train):
    with pytest.raises(ConfigError, match="no tile is in split 'val': training stops by the loss on it"):
        train(val=tiles.split("val").iloc[:0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bakcbone", "the configurations \\['train.yaml'\\] have no id 'bakcbone'; did you mean 'backbone'\\?$"),
        ("trian#trainer", "have no id 'trian#trainer'; did you mean 'train'\\?$"),
        ("zzz", "have no id 'zzz'$"),
    ],
)
def test_an_override_that_changes_nothing(train, name, message):
    with pytest.raises(ConfigError, match=message):
        train(overrides={name: 1})
