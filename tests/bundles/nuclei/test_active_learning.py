# SPDX-License-Identifier: Apache-2.0
"""active_learning.yaml from the fields to the report."""

from __future__ import annotations

import sqlite3

import pandas as pd
import pytest
import torch

from tests.bundles.bundle_files import NUCLEI, read
from tests.bundles.nuclei.disc_fields import KNOWN, UNKNOWN
from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.errors import CohortError, ConfigError, LedgerError, StrategyError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.ledger import Ledger
from tral_monai.strategies.registry import strategy_class, strategy_names

AP = [f"{name}_ap50" for name in KNOWN]
ARMS = NUCLEI.overlay_folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_folder_holds_what_a_run_promises(run_folder):
    files = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    wanted = {"ledger.sqlite", "summary.csv", "queries.csv", "model.pt", "report.html", "fovs.parquet"}
    of_rounds = {"round_001/model.pt", "round_001/auxiliary.pt", "round_001/train.parquet", "round_002/model.pt"}
    assert wanted | {f"rounds/{name}" for name in of_rounds} <= files
    # Nothing follows the last round, so that no auxiliary detector is trained for it.
    assert "rounds/round_002/auxiliary.pt" not in files
    assert [name for name in files if name.endswith(".tmp")] == []


def test_the_summary(run_folder):
    summary = pd.read_csv(run_folder / "summary.csv")
    # The columns that issue 3 asks for, in its order.
    asked = ["known_queried", "unknown_queried", "purity"]
    assert list(summary.columns) == ["round", "images", "boxes_drawn", "minutes", "map50", *AP, "fp_on_unknown", *asked]
    assert summary["round"].tolist() == [1, 2]
    assert summary["images"].tolist() == [3, 5]
    # 10 s an image, 7 s a box and 2 s to name a known one.
    with Ledger(run_folder / "ledger.sqlite") as ledger:
        nuclei = ledger.nuclei(before_round=2)
    known = nuclei["answer"].isin(KNOWN).sum()
    assert summary["boxes_drawn"].tolist()[1] == len(nuclei)
    assert summary["minutes"].tolist()[1] == pytest.approx((5 * 10 + len(nuclei) * 7 + known * 2) / 60, abs=1e-6)
    assert summary["map50"].tolist() == pytest.approx(summary[AP].mean(axis=1).tolist(), abs=1e-5)


def test_the_queries(run_folder):
    queries = pd.read_csv(run_folder / "queries.csv")
    assert queries["round"].tolist() == [1, 1]
    assert queries["rank"].tolist() == [0, 1]
    table = read_fovs(run_folder / "fovs.parquet").set_index("id").loc[queries["sample_id"]]
    assert set(table["part"]) == {"train"}
    names = [list(classes) for classes in table["classes"]]
    assert queries["unknown"].tolist() == [found.count(UNKNOWN) for found in names]
    assert queries["known"].tolist() == [len(found) - found.count(UNKNOWN) for found in names]
    summary = pd.read_csv(run_folder / "summary.csv").iloc[0]
    known, unknown = queries["known"].sum(), queries["unknown"].sum()
    assert (summary["known_queried"], summary["unknown_queried"]) == (known, unknown)
    assert summary["purity"] == pytest.approx(known / (known + unknown), abs=1e-6)


def test_the_detectors(run_folder):
    first, auxiliary, last = (
        load_checkpoint(run_folder / "rounds" / name)
        for name in ("round_001/model.pt", "round_001/auxiliary.pt", "round_002/model.pt")
    )
    assert (first.role, auxiliary.role, last.role) == ("target", "prototype", "target")
    assert first.classes == auxiliary.classes == last.classes == KNOWN
    assert last.settings.fov_mpp == 0.5  # what the data say
    assert last.settings.fov_px == 64
    assert set(last.class_colors) >= set(KNOWN)
    assert (run_folder / "model.pt").read_bytes() == (run_folder / "rounds" / "round_002" / "model.pt").read_bytes()


def test_the_report(run_folder):
    html = (run_folder / "report.html").read_text()
    assert "osal_nd" in html
    assert str(run_folder) not in html


def test_the_same_command_again_changes_nothing(run_folder, active_learning, capsys):
    before = contents(run_folder)
    active_learning(run_folder, strategy="osal_nd", report=True)
    after = contents(run_folder)
    assert "going on after 2 trained rounds" in capsys.readouterr().out
    assert set(after) == set(before)
    assert [name for name in after if name.endswith((".csv", ".pt", ".parquet")) and after[name] != before[name]] == []


def test_the_rounds_can_be_done_one_by_one(active_learning, run_folder, tmp_path):
    # `rounds` is no part of a run's identity: a run of one round is the first one of two.
    active_learning(tmp_path, strategy="osal_nd", rounds=1)
    assert not (tmp_path / "rounds" / "round_002").exists()
    active_learning(tmp_path, strategy="osal_nd", rounds=2)
    for name in ("summary.csv", "queries.csv"):
        assert (tmp_path / name).read_text() == (run_folder / name).read_text()


def test_another_strategy_in_the_same_folder_is_refused(run_folder, active_learning):
    before = contents(run_folder)
    with pytest.raises(LedgerError, match="holds another run .strategy: recorded 'osal_nd', asked 'random'"):
        active_learning(run_folder, strategy="random")
    assert contents(run_folder)["ledger.sqlite"] == before["ledger.sqlite"]


@pytest.mark.parametrize("name", [name for name in strategy_names("nuclei") if name != "osal_nd"])
def test_a_strategy_asks_for_fields(name, active_learning, run_folder, tmp_path):
    active_learning(tmp_path, ARMS / f"{name}.yaml")
    queries = pd.read_csv(tmp_path / "queries.csv")
    assert len(queries) == 2
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Ledger(run_folder / "ledger.sqlite") as other:
        first, theirs = (of.labels(before_round=1)["sample_id"].tolist() for of in (ledger, other))
        assert first == theirs  # every arm starts from the same fields
        assert set(queries["sample_id"]).isdisjoint(first)
        role = strategy_class(name, "nuclei").auxiliary
        assert len(ledger.table("models")) == 2
        trained = [found for found in ("prototype", "k_plus_one") if ledger.auxiliary_model(1, found)]
    assert trained == ([role] if role else [])
    assert (tmp_path / "rounds" / "round_001" / "auxiliary.pt").exists() == (role is not None)
    loss_prediction = load_checkpoint(tmp_path / "rounds" / "round_001" / "model.pt").loss_prediction
    assert (loss_prediction is not None) == (name == "ll4al")


def test_an_overlay_of_every_strategy_is_there():
    arms = {path.stem for path in NUCLEI.overlays if "strategy" in read(path)} - {"paper"}
    assert arms == set(strategy_names("nuclei"))
    assert all(read(ARMS / f"{name}.yaml")["strategy"] == name for name in arms)


def test_a_shared_first_training_is_the_same_file(active_learning, run_folder, tmp_path):
    active_learning(tmp_path, strategy="random", rounds=1)
    ours, theirs = (folder / "rounds" / "round_001" / "model.pt" for folder in (tmp_path, run_folder))
    assert ours.read_bytes() == theirs.read_bytes()


def weights(folder, round_):
    state = load_checkpoint(folder / "rounds" / f"round_{round_:03d}" / "model.pt").state_dict()
    return {name: value for name, value in state.items() if name.endswith("weight") and value.ndim > 1}


def same(some, others):
    return all(torch.equal(value, others[name]) for name, value in some.items())


@pytest.fixture
def standing_still(active_learning, tmp_path):
    """Runs of two rounds that take no step: what the detectors end with is what they begin with."""
    settings = {"learning_rate": 0.0, "optimizer_options": {}, "optimizer_name": "SGD", "strategy": "random"}
    return lambda **overrides: active_learning(tmp_path, **{**settings, **overrides})


def test_a_round_begins_anew_unless_it_starts_warm(standing_still, tmp_path):
    standing_still()
    assert not same(weights(tmp_path, 1), weights(tmp_path, 2))


def test_with_warm_start_a_round_begins_where_the_last_one_ended(standing_still, run_folder, tmp_path):
    # ... and the first one from the detector of another hospital.
    standing_still(warm_start=True, initial_checkpoint=str(run_folder / "model.pt"))
    assert same(weights(run_folder, 2), weights(tmp_path, 1))
    assert same(weights(tmp_path, 1), weights(tmp_path, 2))


def test_budgets_and_costs(active_learning, tmp_path):
    settings = {"seconds_per_image": 0.0, "seconds_per_box": 60.0, "seconds_per_class": 0.0, "total_images": 6}
    fractions = {"initial_fraction": 0.5, "initial_count": None, "budget": None, "query_fraction": 0.5}
    active_learning(tmp_path, strategy="random", rounds=4, **settings, **fractions)
    summary = pd.read_csv(tmp_path / "summary.csv")
    # Half of eight, then half of eight cut to six in all, then the budget is spent.
    assert summary["images"].tolist() == [4, 6]
    assert summary["minutes"].tolist() == summary["boxes_drawn"].tolist()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.info()["stop_reason"] == "the budget of 6 images is spent"


def test_a_hasty_annotator(active_learning, run_folder, tmp_path):
    active_learning(tmp_path, strategy="random", rounds=1, oracle="noisy", oracle_options={"missed": 0.5, "rate": 0.0})
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Ledger(run_folder / "ledger.sqlite") as exact:
        assert 0 < len(ledger.nuclei()) < len(exact.nuclei(before_round=1))


def test_the_best_round_on_val_is_published(active_learning, tmp_path):
    active_learning(tmp_path, strategy="random", val_fraction=0.3, publish="best", updates_per_epoch=2)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    (best,) = connection.execute(
        "select round from metrics where split = 'val' and name = 'map50' order by value desc, round desc limit 1"
    ).fetchone()
    connection.close()
    published = (tmp_path / "model.pt").read_bytes()
    assert published == (tmp_path / "rounds" / f"round_{best:03d}" / "model.pt").read_bytes()


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"strategy": "osal_dn"}, StrategyError, "'osal_dn'.*osal_nd"),
        ({"strategy": "tri_al_iter"}, StrategyError, "tri_al_iter"),
        (
            {"strategy_options": {"candidate": 3}},
            ConfigError,
            "'osal_nd' has no option candidate. Its options are: candidates",
        ),
        ({"open_set": "6+1", "dataset": "generated", "known": None}, ConfigError, "must be one of 5.2, 4.3, 3.4"),
        ({"open_set": "5+2", "known": None}, ConfigError, "'coco' has classes of your own.*list the known classes"),
        ({"known": ["tumor"]}, ConfigError, "tumor"),
        ({"dataset": "pannuke"}, ConfigError, "dataset must be one of nucls, consep.*but is 'pannuke'"),
        ({"dataset_dir": "nowhere"}, CohortError, "there is no data set at 'nowhere'"),
        ({"budget": 2, "query_fraction": 0.15}, ConfigError, "give either budget or query_fraction, not 2 and 0.15"),
        ({"budgets": 2}, ConfigError, "have no id 'budgets'; did you mean 'budget'"),
        ({"oracle": "teacher"}, ConfigError, "no oracle for fields of view is called 'teacher'"),
        ({"oracle_options": {"missed": 0.1}}, ConfigError, r"'archive' has no option \['missed'\]"),
        ({"rounds": 0}, ConfigError, "rounds must be 1 or more"),
        ({"fold": 3}, ConfigError, "fold"),
        ({"network_options": {"fpn_chanels": 8}}, ConfigError, "no setting 'fpn_chanels'; near it: fpn_channels"),
        ({"head": "dirichlet"}, ConfigError, "head must be one of"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named(overrides, error, message, active_learning, tmp_path):
    with pytest.raises(error, match=message):
        active_learning(tmp_path, **{"strategy": "osal_nd", "shared_dir": None, **overrides})
    assert not (tmp_path / "model.pt").exists()
