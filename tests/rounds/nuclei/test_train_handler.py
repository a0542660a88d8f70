# SPDX-License-Identifier: Apache-2.0
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.rounds.nuclei.conftest import BACKBONE, TINY, make_network
from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.errors import ConfigError
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.rounds.nuclei.initial_labels import InitialFields
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle
from tral_monai.rounds.nuclei.train_handler import FieldTrainHandler
from tral_monai.rounds.nuclei.training_table import training_table
from tral_monai.strategies.registry import get_strategy

TRAIN = Path(__file__).parents[3] / "bundles" / "pathology_open_set_nucleus_detection" / "configs" / "train.yaml"


@pytest.fixture
def train(fields):
    """The bundle's training of a tiny detector: two updates with two fields of view each."""

    def make(strategy="random", *, overrides=(), config=TRAIN, **options):
        settings = {
            "bundle_root": str(TRAIN.parents[1]),
            "classes": list(fields.classes),
            "backbone": BACKBONE,
            "network_options": TINY,
            "fov_mpp": 0.5,
            "device": "cpu",
            "max_epochs": 1,
            "updates_per_epoch": 2,
            "batch_size": 2,
            "verbose": False,
            **dict(overrides),
        }
        chosen = get_strategy(strategy, None if strategy == "random" else "nuclei")
        return FieldTrainHandler(config, fields.pool, chosen, overrides=settings, **options)

    return make


@pytest.fixture
def first(fields):
    return InitialFields(fields.pool, ArchiveFieldOracle(fields.pool, fields.open_set), fields.classes, fraction=0.25)


@pytest.fixture
def start(make_engine, first, tmp_path):
    """A round engine with first labels, in round 1; as after a kill where it is called again."""

    def make(*handlers, rounds=2, seed=0, folder=tmp_path):
        engine = make_engine(rounds, *handlers, seed=seed, folder=folder)
        engine._restore_pool(engine)
        first(engine)
        engine.round = 1
        return engine

    return make


def weights(path):
    return load_checkpoint(path).state_dict()


def roi_weight(path):
    """Weights of the first layer of the RoI head, which no batch normalisation moves."""
    return next(value for name, value in weights(path).items() if name.startswith("roi_heads") and "weight" in name)


def same(first, second):
    one, two = weights(first), weights(second)
    return all(torch.equal(one[name], two[name]) for name in one)


def test_both_detectors_learn_from_what_the_annotator_has_seen(start, train, fields):
    engine = start()
    train("pcss")(engine)
    folder = engine.round_dir
    assert sorted(path.name for path in folder.iterdir()) == ["auxiliary.pt", "model.pt", "train.parquet"]
    expected = training_table(engine.ledger, fields.pool)
    pd.testing.assert_frame_equal(read_fovs(folder / "train.parquet"), expected)
    assert {name for names in expected["classes"] for name in names} <= {*fields.classes, "unknown", "ignored"}
    target, auxiliary = load_checkpoint(folder / "model.pt"), load_checkpoint(folder / "auxiliary.pt")
    assert (target.role, auxiliary.role) == ("target", "prototype")
    assert target.classes == auxiliary.classes == fields.classes
    record = engine.ledger.model(1)
    assert (record.path, record.epochs, record.val_loss) == ("rounds/round_001/model.pt", 1, None)
    assert engine.ledger.auxiliary_model(1, "prototype").path == "rounds/round_001/auxiliary.pt"
    assert engine.model_path == folder / "model.pt"
    # The prototypes are those of all answered nuclei, not of the last batch: both sides were seen.
    assert auxiliary.prototypes.ready.tolist() == [True, True]


@pytest.mark.parametrize(
    ("strategy", "role", "predicts"),
    [("random", None, False), ("lfosa", "k_plus_one", False), ("ll4al", None, True)],
)
def test_only_the_detectors_that_the_strategy_needs(start, train, strategy, role, predicts):
    engine = start()
    train(strategy)(engine)
    assert (load_checkpoint(engine.model_path).loss_prediction is not None) == predicts
    assert (engine.round_dir / "auxiliary.pt").is_file() == (role is not None)
    roles = engine.ledger.table("auxiliary_models")["role"].tolist()
    assert roles == ([] if role is None else [role])


def test_no_auxiliary_detector_where_nothing_is_asked_any_more(start, train):
    engine = start(rounds=1)
    train("pcss")(engine)
    assert engine.ledger.table("auxiliary_models").empty
    assert not (engine.round_dir / "auxiliary.pt").exists()


def test_each_detector_is_kept_or_trained_again_by_itself_to_the_same(start, train, caplog):
    engine = start()
    train("pcss")(engine)
    target, auxiliary = engine.round_dir / "model.pt", engine.round_dir / "auxiliary.pt"
    before = engine.ledger.model(1), engine.ledger.auxiliary_model(1, "prototype")
    times = [path.stat().st_mtime_ns for path in (target, auxiliary)]
    train("pcss")(engine)
    assert [path.stat().st_mtime_ns for path in (target, auxiliary)] == times
    # Where an earlier test has switched INFO on, the first call tells of its prototypes.
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    auxiliary.unlink()
    (engine.round_dir / "training_prototype").mkdir()  # left by a killed training
    (engine.round_dir / "training_prototype" / "model.pt").write_bytes(b"half a model")
    train("pcss")(engine)
    assert target.stat().st_mtime_ns == times[0]
    assert "auxiliary.pt is missing or changed since it was recorded; training it again" in caplog.text
    assert engine.ledger.auxiliary_model(1, "prototype").sha256 == before[1].sha256

    target.write_bytes(b"half a model")
    train("pcss")(engine)
    assert engine.ledger.model(1).sha256 == before[0].sha256
    assert sorted(path.name for path in engine.round_dir.iterdir()) == ["auxiliary.pt", "model.pt", "train.parquet"]


def test_a_run_that_was_killed_between_the_two_trains_the_second(start, train):
    engine = start()
    train("random")(engine)  # the target alone
    stamp = engine.model_path.stat().st_mtime_ns
    train("pcss")(engine)
    assert engine.model_path.stat().st_mtime_ns == stamp
    assert (engine.round_dir / "auxiliary.pt").is_file()


def test_arms_of_one_seed_train_alike_whatever_their_strategy(start, train, tmp_path):
    one, two, other = (start(folder=tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    train("pcss")(one)
    train("random")(two)
    assert one.ledger.model(1).sha256 == two.ledger.model(1).sha256
    train("random")(other)
    assert other.ledger.model(1).sha256 != one.ledger.model(1).sha256


def test_a_shared_folder_saves_the_second_arm_its_training(start, train, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    one, two, other = (start(folder=tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    train("random", shared_dir=shared)(one)
    assert len(list(shared.glob("*.pt"))) == 1
    monkeypatch.setattr("tral_monai.rounds.nuclei.train_handler.run_training", None)  # nothing may be trained
    train("uncertainty", shared_dir=shared)(two)
    assert two.ledger.model(1) == one.ledger.model(1)
    assert same(one.model_path, two.model_path)
    assert not list(two.round_dir.glob("training_*"))
    for changed in ({"seed": 1}, {"learning_rate": 0.1}):
        arm = other if "seed" in changed else start(folder=tmp_path / "d")
        overrides = {} if "seed" in changed else changed
        with pytest.raises(TypeError):  # the missing training is called
            train("random", overrides=overrides, shared_dir=shared)(arm)


def test_a_round_begins_anew_or_from_the_one_before(start, train, first, tmp_path):
    still = {"learning_rate": 0.0}  # no step changes the trainable weights
    for warm in (False, True):
        engine = start(folder=tmp_path / str(warm), rounds=3)
        handler = train("lfosa", overrides=still, warm_start=warm)
        handler(engine)
        engine.round = 2
        handler(engine)
        for name in ("model.pt", "auxiliary.pt"):
            before, after = (roi_weight(engine.output_dir / "rounds" / f"round_00{r}" / name) for r in (1, 2))
            assert torch.equal(before, after) == warm


def test_the_first_round_may_begin_from_a_model(start, train, fields, tmp_path):
    initial = save_checkpoint(tmp_path / "initial.pt", make_network(fields, seed=9))
    engine = start()
    train("lfosa", overrides={"learning_rate": 0.0}, initial_checkpoint=str(initial))(engine)
    assert torch.equal(roi_weight(engine.model_path), roi_weight(initial))
    assert not torch.equal(roi_weight(engine.round_dir / "auxiliary.pt"), roi_weight(initial))


def test_validation_fields_reach_the_training(start, train, fields):
    engine = start()
    handler = train(val_index=fields.answered("test"), overrides={"val_interval": 1})
    handler(engine)
    assert (engine.round_dir / "val.parquet").is_file()
    assert engine.ledger.model(1).val_loss is None  # it is watched by mAP, not by a loss


def test_nothing_to_train_on(make_engine, train):
    engine = make_engine(1)
    engine.round = 1
    with pytest.raises(ConfigError, match="round 1 has no label to train on; attach InitialFields first"):
        train()(engine)


def test_a_training_that_saves_no_model(start, train):
    with pytest.raises(ConfigError, match="training left no model.pt in .*training_target; its configuration must"):
        train(overrides={"train#handlers": []})(start())
    assert logging.root.manager.disable == logging.NOTSET


def test_a_configuration_that_cannot_tell_detectors_apart(train, tmp_path):
    config = tmp_path / "train.yaml"
    lines = TRAIN.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("role:")))
    with pytest.raises(ConfigError, match="the configurations \\['train.yaml'\\] have no id 'role'"):
        train(config=config)


def test_an_override_that_changes_nothing(train):
    with pytest.raises(ConfigError, match="have no id 'bakcbone'; did you mean 'backbone'\\?"):
        train(overrides={"bakcbone": 1})


def test_loss_prediction_needs_pairs(train):
    with pytest.raises(ConfigError, match="ll4al learns from pairs of fields .* but batch_size is 1; make it 2"):
        train("ll4al", overrides={"batch_size": 1})
    train("random", overrides={"batch_size": 1})


def test_the_auxiliary_detector_is_not_validated_as_if_it_were_the_target(start, train, fields):
    # Its outputs are other classes ("known", or "unknown" as one more) than those that mAP is taken over.
    engine = start()
    engine.round_dir.mkdir(parents=True, exist_ok=True)
    handler, samples = train("lfosa", val_index=fields.answered("test")), training_table(engine.ledger, fields.pool)
    assert handler._tables(engine, samples, "k_plus_one")["val_samples"] is None
    assert handler._tables(engine, samples, "target")["val_samples"] == str(engine.round_dir / "val.parquet")
