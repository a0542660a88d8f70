# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import shapely
import torch

from tests.rounds.regions.colour_site import annotate, drop_in, make_slides, nuclei_site, tissue_site
from tral_monai.errors import BusyError, ConfigError, LedgerError, StrategyError, UnknownItemError
from tral_monai.file_hash import file_sha256
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.regions.publish import published_split, roll_back
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.train_round import train_round, train_stats
from tral_monai.rounds.run_lock import RunLock

UPPER, LOWER = ((0, 0, 1024, 384), (0, 384, 1024, 384))
"""Halves of a slide: 10 tiles of Stroma, 10 of Muscle and 4 of Blood each."""
NO_QUERY = {"query": False}


@pytest.fixture(scope="module")
def first_round(tmp_path_factory):
    """A site after its first round: a half of slide a to train on, and a half of c held out."""
    studies = make_slides(tmp_path_factory.mktemp("site") / "slides")
    annotate(studies, Region("a.tif", *UPPER))
    annotate(studies, Region("c.tif", *UPPER))
    lines = []
    result = train_round(tissue_site(studies), log=lines.append)
    return studies, result, lines


@pytest.fixture
def site(first_round, tmp_path):
    """A copy of that site, for a test to go on with."""
    task = tissue_site(shutil.copytree(first_round[0], tmp_path / "slides"))
    with task.ledger() as ledger:
        assert ledger.withdraw_query(1)  # regions that are asked for would be answered by what tests draw over them
    return task


def quick(task, log=lambda line: None, **options):
    return train_round(task, options={**NO_QUERY, **options}, log=log)


def head(path):
    return load_checkpoint(path).state_dict()["head.1.weight"]


def test_a_round_from_label_files_to_the_next_query(first_round):
    studies, result, lines = first_round
    task = tissue_site(studies)
    folder = task.round_dir(1)
    assert (result["round"], result["trained"], result["published"]) == (1, True, True)
    assert result["labels"] == {"Stroma": 10, "Muscle": 10, "Blood": 4}
    assert result["regions"] == {"train": 1, "val": 1}
    assert result["val"]["f1_macro"] == 1.0
    assert result["query"] == {"round": 1, "open": 2, "problem": ""}
    json.dumps(result)
    assert "round 1: 2 regions answered, 1 to train on (24 tiles: Stroma 10, Muscle 10, Blood 4), 1 held out" in lines
    assert "measured by: regions on held-out slides" in lines
    assert sum(line.startswith("target: epoch ") for line in lines) == 8
    assert any(line.startswith("target: epoch 8/8, val_loss 0.") for line in lines)
    assert lines[-2].startswith("round 1 is published: it is the first model here, f1_macro 1.000")
    assert lines[-1] == "round 1 is open: 2 regions to annotate"
    train, val = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "val"))
    assert (set(train["slide"]), set(val["slide"])) == ({"a.tif"}, {"c.tif"})
    network = load_checkpoint(task.model_path)
    assert network.classes == task.classes
    assert network.frozen
    with task.ledger() as ledger:
        record = ledger.model(1)
        assert (record.path, record.epochs) == ("rounds/round_001/model.pt", 8)
        assert record.sha256 == file_sha256(folder / "model.pt") == file_sha256(task.model_path)
        assert ledger.confusion(1, "val", task.classes) == [[10, 0, 0], [0, 10, 0], [0, 0, 4]]
        assert (ledger.info()["published_round"], ledger.info()["published_round_1"]) == (1, True)
        assert published_split(ledger) == "val"
        assert len(ledger.asked(1)) == 2
    assert not list(folder.glob("training_*"))


def test_what_a_server_tells_of_it(first_round):
    stats = train_stats(tissue_site(first_round[0]))
    assert (stats["round"], stats["published_round"], stats["regions_answered"], stats["regions_open"]) == (1, 1, 2, 2)
    assert stats["labels"] == {"Stroma": 10, "Muscle": 10, "Blood": 4}
    assert stats["best_metric"] == stats["val"]["f1_macro"] == 1.0
    assert "first model" in stats["note"]
    json.dumps(stats, allow_nan=False)


def test_no_torch_to_tell_where_a_task_stands(first_round):
    code = (
        "import sys\n"
        "from tral_monai.rounds.regions.settings import read_settings\n"
        "from tral_monai.rounds.regions.site import AnnotationSite\n"
        "from tral_monai.rounds.regions.train_stats import train_stats\n"
        f"settings = read_settings({{'tissue_classes': 'Stroma, Muscle, Blood', 'device': 'cpu'}})\n"
        f"site = AnnotationSite({str(first_round[0])!r}, settings)\n"
        "assert train_stats(site.task('tissue'))['round'] == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_to_learn(tmp_path, site):
    empty = tissue_site(make_slides(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="nothing is annotated for 'tissue' yet: ask for the next sample, annotate"):
        quick(empty)
    with pytest.raises(ConfigError, match="nothing was annotated since the training of round 1: submit labels of"):
        quick(site)
    assert quick(site, force=True, max_epochs="2", warm_start="true")["round"] == 2
    assert train_stats(site)["round"] == 2


def test_a_query_that_is_missing_is_made(site, first_round):
    result = train_round(site, log=lambda line: None)
    assert (result["trained"], result["round"], result["query"]["open"]) == (False, 1, 2)
    with site.ledger() as ledger, tissue_site(first_round[0]).ledger() as other:
        assert [one.region.id for one in ledger.asked(1)] == [one.region.id for one in other.asked(1)]
    with pytest.raises(ConfigError, match="nothing was annotated since the training of round 1"):
        train_round(site)


def test_only_a_model_that_is_not_worse_is_published_and_the_way_back(site, first_round):
    one = file_sha256(site.model_path)
    with pytest.raises(
        ConfigError, match="there is no tissue model to roll back to: previous.pt comes with the second"
    ):
        roll_back(site)
    annotate(site.site.studies, Region("b.tif", 0, 0, 1024, 768), wrong=True)
    lines = []
    result = quick(site, lines.append, warm_start=False)
    assert not result["published"]
    assert result["val"]["f1_macro"] < result["val_previous"]["f1_macro"] == 1.0
    assert "is below the published model's 1.000 (measured by regions on held-out slides)" in lines[-1]
    assert file_sha256(site.model_path) == one
    assert not site.previous_path.exists()
    stats = train_stats(site)
    assert (stats["round"], stats["published_round"], stats["best_metric"]) == (2, 1, 1.0)
    with site.ledger() as ledger:
        assert published_split(ledger) == "val_previous"
        assert ledger.confusion(2, "val_previous", site.classes) == [[10, 0, 0], [0, 10, 0], [0, 0, 4]]

    (site.site.studies / "labels" / "final" / "b.geojson").unlink()
    annotate(site.site.studies, Region("a.tif", *LOWER))
    lines = []
    result = quick(site, lines.append)
    assert (result["round"], result["published"]) == (3, True)
    assert "target: training begins with model.pt" in lines
    three = file_sha256(site.model_path)
    assert [three, file_sha256(site.previous_path)] == [file_sha256(site.round_dir(3) / "model.pt"), one]
    assert (site.round_dir(1) / "model.pt").is_file()

    assert roll_back(site) == {"task": "tissue", "rolled_back": True, "published_round": 1, "before": 3}
    assert [file_sha256(site.model_path), file_sha256(site.previous_path)] == [one, three]
    assert train_stats(site)["published_round"] == 1
    with site.ledger() as ledger:
        assert published_split(ledger) == "val_previous"
    assert roll_back(site)["published_round"] == 3
    assert [file_sha256(site.model_path), file_sha256(site.previous_path)] == [three, one]
    with site.ledger() as ledger:
        assert published_split(ledger) == "val"


KILLED = """
import os, signal, sys
from tests.rounds.regions.colour_site import tissue_site
from tral_monai.rounds.regions.train_round import train_round

def log(line):
    if line.startswith("target: epoch 3/"):
        os.kill(os.getpid(), signal.SIGKILL)

train_round(tissue_site(sys.argv[1]), log=log)
"""


def test_a_training_that_is_killed_leaves_the_old_state_and_is_done_again(site):
    studies = site.site.studies
    annotate(studies, Region("b.tif", *UPPER))
    before = file_sha256(site.model_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(studies)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (site.round_dir(2) / "training_target").is_dir()
    stats = train_stats(site)
    assert (stats["round"], stats["published_round"], stats["regions_answered"]) == (1, 1, 3)
    assert file_sha256(site.model_path) == before
    (site.round_dir(2) / "left.pt").touch()
    annotate(studies, Region("b.tif", *LOWER))  # what came since counts too
    result = quick(site)
    assert (result["round"], result["regions"]["train"]) == (2, 3)
    assert sorted(path.name for path in site.round_dir(2).iterdir()) == [
        "model.pt",
        "plan.json",
        "train.parquet",
        "trained.json",
        "val.parquet",
    ]


class Stop(Exception):
    """The process ends here."""


@pytest.mark.parametrize("line", ["new model", "published model", None])
def test_a_model_that_is_trained_is_not_trained_again(site, line):
    annotate(site.site.studies, Region("b.tif", *UPPER))

    def log(text):
        if line is not None and text.startswith(line):
            raise Stop

    if line is not None:
        with pytest.raises(Stop):
            quick(site, log)
    else:  # all is done but the last entry of the ledger
        quick(site)
        with site.ledger() as ledger:
            ledger._db.execute("DELETE FROM models WHERE round = 2")
    model = site.round_dir(2) / "model.pt"
    written, lines = model.stat().st_mtime_ns, []
    assert train_stats(site)["round"] == 1
    annotate(site.site.studies, Region("b.tif", *LOWER))
    result = quick(site, lines.append)
    assert "round 2 was trained before its process ended; going on from there" in lines
    assert not [text for text in lines if "epoch" in text]
    assert model.stat().st_mtime_ns == written
    assert (result["round"], result["published"], train_stats(site)["published_round"]) == (2, True, 2)
    assert file_sha256(site.model_path) == file_sha256(model)
    assert file_sha256(site.previous_path) == file_sha256(site.round_dir(1) / "model.pt")
    assert quick(site)["regions"] == {"train": 3, "val": 1}  # what came since is new


def test_no_held_out_answer_takes_a_whole_region_or_an_end_of_the_only_one(first_round, tmp_path):
    studies = make_slides(tmp_path / "slides")
    task = tissue_site(studies)
    shutil.copytree(tissue_site(first_round[0]).folder / "features", task.folder / "features")
    annotate(studies, Region("a.tif", *UPPER))
    lines = []
    result = quick(task, lines.append, max_epochs=2)
    assert result["measured_by"].startswith("one end of the only annotated region; annotate another region")
    train, val = (pd.read_parquet(task.round_dir(1) / f"{name}.parquet") for name in ("train", "val"))
    assert set(val["x_level0"]) == {832, 960}  # two of eight columns, and the one before them is left out
    assert set(train["x_level0"]) == {64, 192, 320, 448, 576}
    assert any(line.startswith("no held-out label yet of: Stroma") for line in lines)

    annotate(studies, Region("a.tif", *LOWER))
    annotate(studies, Region("b.tif", *UPPER))
    result = quick(task, max_epochs=2)
    assert result["measured_by"] == "1 of the training regions, held out because no held-out region is annotated yet"
    assert result["regions"] == {"train": 2, "val": 1}
    train, val = (pd.read_parquet(task.round_dir(2) / f"{name}.parquet") for name in ("train", "val"))
    assert not set(train["region"]) & set(val["region"])


def test_too_little_or_only_held_out(tmp_path):
    studies = make_slides(tmp_path / "slides")
    task = tissue_site(studies)
    tile = Region("a.tif", 0, 0, 128, 128)
    drop_in(studies, tile, ("Stroma", tile.polygon))
    with pytest.raises(ConfigError, match="1 labelled tiles cannot be divided into some to train on and some to"):
        quick(task)
    (studies / "labels" / "final" / "a.geojson").unlink()
    annotate(studies, Region("c.tif", *UPPER))
    with pytest.raises(
        ConfigError, match="24 tile samples are held out to measure models by, but none is there to train"
    ):
        quick(task)
    (studies / "c.tif").unlink()
    with pytest.raises(ConfigError, match="the annotated regions give no tile of the classes"):
        quick(task)
    assert train_stats(task)["round"] == 0


def test_a_slide_that_is_gone_does_not_keep_the_others_from_training(site, caplog):
    annotate(site.site.studies, Region("b.tif", *UPPER))
    (site.site.studies / "a.tif").unlink()
    result = quick(site)
    assert result["labels"] == {"Stroma": 10, "Muscle": 10, "Blood": 4}
    assert set(pd.read_parquet(site.round_dir(2) / "train.parquet")["slide"]) == {"b.tif"}
    assert "1 answered regions of a.tif are left out" in caplog.text
    with site.ledger() as ledger:
        assert len(ledger.answers()) == 3


def test_a_model_of_another_network_does_not_begin_a_training(site):
    lines = []
    result = quick(site, lines.append, force=True, feature_norm="none", max_epochs=1)
    assert any(
        line.startswith("target: training begins anew, because model.pt is of another network: the checkpoint does not")
        and "feature_norm" in line
        for line in lines
    )
    assert result["round"] == 2
    anew = []
    quick(site, anew.append, force=True, warm_start=False, max_epochs=1)
    assert not [line for line in anew if "begins" in line]


def test_two_at_once(site):
    with RunLock(site.folder):
        for act in (quick, roll_back):
            with pytest.raises(BusyError, match="a training of 'tissue' is going on; wait for its end, or stop it"):
                act(site)


def test_another_ledger(site):
    other = tissue_site(site.site.studies, tissue_classes="Stroma, Muscle")
    with pytest.raises(LedgerError, match="were begun with other settings .classes: "):
        quick(other, force=True)


def test_options_that_are_none(site):
    with pytest.raises(ConfigError, match="a training has no option 'max_epoch'; did you mean 'max_epochs'"):
        quick(site, max_epoch=3)
    with pytest.raises(ConfigError, match="force must be true or false, but is 'perhaps'"):
        quick(site, force="perhaps")


def test_a_strategy_that_is_none(site):
    with pytest.raises((StrategyError, UnknownItemError), match="osal_nd"):
        train_round(site, options={"strategy": "osal_nd"})


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    """A site after a round of the nucleus task with OSAL-ND."""
    studies = make_slides(tmp_path_factory.mktemp("nuclei") / "slides")
    for name, x in (("a", 0), ("b", 0), ("c", 256)):
        cells = [("tumour", shapely.box(x + 8, 8, x + 20, 20)), ("fat", shapely.box(x + 30, 30, x + 42, 40))]
        if name != "b":
            cells.append(("lymphocyte", shapely.box(x + 40, 8, x + 52, 20)))
        drop_in(studies, Region(f"{name}.tif", x, 0, 64, 64), *((k if k != "fat" else "unknown", b) for k, b in cells))
    lines = []
    result = train_round(nuclei_site(studies), options={"strategy": "nuclei_osal_nd", **NO_QUERY}, log=lines.append)
    return studies, result, lines


def test_a_round_of_both_detectors(nuclei):
    studies, result, lines = nuclei
    task = nuclei_site(studies)
    assert result["labels"] == {"tumour": 2, "lymphocyte": 1, "unknown": 2}
    assert (result["regions"], result["published"]) == ({"train": 2, "val": 1}, True)
    assert "map50" in result["val"]
    assert {line.split(",")[0] for line in lines if "epoch" in line} == {"target: epoch 1/1", "prototype: epoch 1/1"}
    target, auxiliary = load_checkpoint(task.model_path), load_checkpoint(task.auxiliary_path)
    assert (target.role, auxiliary.role) == ("target", "prototype")
    assert auxiliary.prototypes.ready.tolist() == [True, True]  # fitted to all nuclei that were answered
    with task.ledger() as ledger:
        assert ledger.auxiliary_model(1, "prototype").sha256 == file_sha256(task.auxiliary_path)
        assert ledger.model(1).sha256 == file_sha256(task.model_path)


def test_an_auxiliary_detector_that_is_missing_is_trained_alone(nuclei, tmp_path):
    task = nuclei_site(shutil.copytree(nuclei[0], tmp_path / "slides"))
    with task.ledger() as ledger:
        ledger._db.execute("DELETE FROM models")
    (task.round_dir(1) / "auxiliary.pt").unlink()  # killed between the two
    task.auxiliary_path.unlink()
    lines = []
    quick(task, lines.append)
    assert "model.pt of round 1 is trained already" in lines
    assert [line.split(",")[0] for line in lines if "epoch" in line] == ["prototype: epoch 1/1"]
    before, after = (
        load_checkpoint(path).state_dict() for path in (nuclei_site(nuclei[0]).auxiliary_path, task.auxiliary_path)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_head_that_predicts_losses_where_the_strategy_wants_it(nuclei, tmp_path):
    task = nuclei_site(shutil.copytree(nuclei[0], tmp_path / "slides"))
    with pytest.raises(ConfigError, match="ll4al learns from pairs of fields .* but batch_size is 1"):
        quick(task, force=True, strategy="ll4al", batch_size=1)
    lines = []
    quick(task, lines.append, force=True, strategy="ll4al")
    assert load_checkpoint(task.round_dir(2) / "model.pt").loss_prediction is not None
    assert any("begins anew, because model.pt is of another network" in line for line in lines)
    assert not (task.round_dir(2) / "auxiliary.pt").exists()


def test_one_field_alone_is_published_unmeasured(tmp_path):
    studies = make_slides(tmp_path / "slides")
    drop_in(studies, Region("a.tif", 0, 0, 64, 64), ("tumour", shapely.box(8, 8, 24, 24)))
    task = nuclei_site(studies, nuclei_strategy="random")
    result = quick(task)
    assert result["published"]
    assert result["note"] == "there is nothing held out to measure by"
    assert result["val"] == {}
    assert train_stats(task)["best_metric"] is None
