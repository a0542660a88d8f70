# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from tests.rounds.regions.colour_site import make_slides, tissue_site
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.regions.publish import _replace, previous_auxiliary, publish, roll_back, shall_publish

NAN = math.nan


@pytest.fixture
def task(tmp_path):
    task = tissue_site(make_slides(tmp_path / "slides", ("a",)))
    task.folder.mkdir(parents=True)
    return task


def model(task, round_, name="model.pt"):
    path = task.round_dir(round_) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{name} of round {round_}".encode())
    return path


def contents(task):
    files = (task.model_path, task.previous_path, task.auxiliary_path, previous_auxiliary(task))
    return [file.read_text() if file.is_file() else None for file in files]


@pytest.mark.parametrize(
    ("new", "old", "tolerance", "decision", "why"),
    [
        (None, None, 0.0, True, "there is nothing held out to measure by"),
        (0.2, None, 0.0, True, "it is the first model here, f1_macro 0.200"),
        (NAN, None, 0.0, True, "it is the first model here, f1_macro undefined"),
        (0.7, 0.7, 0.0, True, "f1_macro 0.700 is not below the published model's 0.700"),
        (0.699, 0.7, 0.0, False, "f1_macro 0.699 is below the published model's 0.700"),
        (0.66, 0.7, 0.05, True, "f1_macro 0.660 is not below the published model's 0.700 less 0.05"),
        (0.64, 0.7, 0.05, False, "f1_macro 0.640 is below the published model's 0.700 less 0.05"),
        (NAN, 0.1, 1.0, False, "f1_macro of the new model is undefined, that of the published one is 0.100"),
        (0.0, NAN, 0.0, True, "f1_macro of the published model is undefined, that of the new one is 0.000"),
        (NAN, NAN, 0.0, True, "f1_macro of the published model is undefined, that of the new one is undefined"),
    ],
)
def test_the_decision(new, old, tolerance, decision, why):
    assert shall_publish(new, old, tolerance=tolerance, metric="f1_macro") == (decision, why)


def test_each_model_takes_the_place_of_the_one_before(task):
    publish(task, model(task, 1))
    assert contents(task) == ["model.pt of round 1", None, None, None]
    publish(task, model(task, 2), model(task, 2, "auxiliary.pt"))
    assert contents(task) == ["model.pt of round 2", "model.pt of round 1", "auxiliary.pt of round 2", None]
    again = contents(task)
    publish(task, model(task, 2), model(task, 2, "auxiliary.pt"))  # as after a kill: nothing is lost
    assert contents(task) == again
    (task.folder / ".part-0123456789ab-model.pt").write_bytes(b"half")
    publish(task, model(task, 3), model(task, 3, "auxiliary.pt"))
    assert contents(task) == [
        "model.pt of round 3",
        "model.pt of round 2",
        "auxiliary.pt of round 3",
        "auxiliary.pt of round 2",
    ]
    assert not list(task.folder.glob(".part-*"))


def test_the_model_that_a_lab_brought_is_kept_too(tmp_path):
    own = tmp_path / "own.pt"
    own.write_bytes(b"the lab's")
    task = tissue_site(make_slides(tmp_path / "slides", ("a",)), tissue_checkpoint=str(own))
    task.folder.mkdir(parents=True)
    publish(task, model(task, 1))
    assert contents(task)[:2] == ["model.pt of round 1", "the lab's"]
    assert roll_back(task)["published_round"] == 0
    assert contents(task)[:2] == ["the lab's", "model.pt of round 1"]
    assert own.read_text() == "the lab's"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_way_back_that_is_killed_is_finished_by_the_next(task, steps, monkeypatch):
    for round_ in (1, 2):
        publish(task, model(task, round_), model(task, round_, "auxiliary.pt"))
    with task.ledger() as ledger:
        for round_ in (1, 2):
            sha256 = file_sha256(task.round_dir(round_) / "model.pt")
            ledger.record_model(round_, ModelRecord("", sha256, 1.0, 1, None))
    done = []

    def dying(target, source):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        _replace(target, source)

    with monkeypatch.context() as patch:
        patch.setattr("tral_monai.rounds.regions.publish._replace", dying)
        with pytest.raises(KeyboardInterrupt):
            roll_back(task)
    assert contents(task)[0] in ("model.pt of round 1", "model.pt of round 2")  # always a whole one
    result = roll_back(task)
    assert (result["published_round"], result["before"]) == (1, 2)
    assert contents(task) == [
        "model.pt of round 1",
        "model.pt of round 2",
        "auxiliary.pt of round 1",
        "auxiliary.pt of round 2",
    ]
    assert not list(task.folder.glob("*.swap.*"))
    assert roll_back(task)["published_round"] == 2
    assert contents(task)[:2] == ["model.pt of round 2", "model.pt of round 1"]


def test_there_is_nothing_to_go_back_to(task):
    with pytest.raises(
        ConfigError, match="there is no tissue model to roll back to: previous.pt comes with the second"
    ):
        roll_back(task)
    publish(task, model(task, 1))
    with pytest.raises(ConfigError, match="there is no tissue model to roll back to"):
        roll_back(task)
