# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every stage of a round, run again: ledger, budget and final choice are as without the kill."""

import signal

import pandas as pd
import pytest

from tests.end_to_end.killed_run import SETTINGS, run
from tral_monai.rounds.ledger import Ledger

LEDGER = "tral_monai.rounds.ledger:Ledger."

# Where the process dies. The second call of a record is round 2's, unless the comment says otherwise.
STAGES = {
    "index not yet written": ("tral_monai.data.run_index:write_index", "before", 1),
    "features half computed": ("tral_monai.data.feature_cache:_save", "before", 2),
    "first labels not yet recorded": (LEDGER + "record_labels", "before", 1),
    "first labels recorded": (LEDGER + "record_labels", "after", 1),
    "in the middle of an epoch": ("torch.optim:AdamW.step", "before", 9),
    "best epoch half saved": ("torch:save", "before", 3),
    "trained, model not yet recorded": (LEDGER + "record_model", "before", 2),
    "trained": (LEDGER + "record_model", "after", 2),
    "val evaluated, test not": (LEDGER + "record_evaluation", "after", 3),  # val, test, val
    "evaluated": (LEDGER + "record_evaluation", "after", 4),
    "chosen, query not yet recorded": (LEDGER + "record_query", "before", 2),
    "query recorded": (LEDGER + "record_query", "after", 2),
    "answered, labels not yet recorded": (LEDGER + "record_labels", "before", 3),  # first labels, round 1, round 2
    "labelled": (LEDGER + "record_labels", "after", 3),
    "model half published": ("shutil:copyfile", "after", 2),
    "round complete": ("tral_monai.report.handler:ReportHandler.__call__", "after", 2),
    "report half written": ("tral_monai.report.handler:ReportHandler.finish", "before", 1),
}


def outcome(folder) -> dict[str, object]:
    """All that a run decided: choices with scores, labels, models, metrics. Times and paths are left out."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        tables = {name: ledger.table(name) for name in ("queries", "labels", "metrics", "confusion")}
        tables["models"] = ledger.table("models").drop(columns=["seconds"])
        return {name: table.to_dict("records") for name, table in tables.items()} | {
            "published": ledger.info()["published_round"]
        }


@pytest.fixture(scope="module")
def settings(tiny_cohort, tmp_path_factory):
    # Publishing after every round, so that a kill can hit it; the HTML is written only where its writing is killed.
    return {**SETTINGS, "cohort": str(tiny_cohort), "strategy": "tri_al_quota", "publish": "last", "report": False}


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run({**settings, "output_dir": str(folder), "feature_dir": str(folder / "features")}) == 0
    return folder


def test_the_undisturbed_run_spends_its_budget(undisturbed):
    labels = pd.DataFrame(outcome(undisturbed)["labels"])
    # Two tiles of each of five classes to begin with, then two queries of six.
    assert labels.groupby("round")["sample_id"].count().to_dict() == {0: 10, 1: 6, 2: 6}
    assert labels["sample_id"].is_unique


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_to_the_same_end(stage, settings, undisturbed, tmp_path):
    feature_dir = tmp_path / "features" if "features" in stage else undisturbed / "features"
    mine = {**settings, "output_dir": str(tmp_path / "run"), "feature_dir": str(feature_dir)}
    mine["report"] = "report" in stage
    assert run(mine, STAGES[stage]) == -signal.SIGKILL
    assert run(mine) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)
    for name in ("summary.csv", "queries.csv"):
        assert (tmp_path / "run" / name).read_text() == (undisturbed / name).read_text()
    assert (tmp_path / "run" / "report.html").is_file() == mine["report"]
    assert (tmp_path / "run" / "model.pt").is_file()


def test_running_a_finished_run_again_changes_nothing(settings, undisturbed):
    before = outcome(undisturbed)
    mine = {**settings, "output_dir": str(undisturbed), "feature_dir": str(undisturbed / "features")}
    assert run(mine) == 0
    assert outcome(undisturbed) == before


def test_more_rounds_go_on_from_where_a_finished_run_was(settings, undisturbed, tmp_path):
    mine = {**settings, "output_dir": str(tmp_path / "run"), "feature_dir": str(undisturbed / "features")}
    assert run({**mine, "rounds": 2}) == 0
    assert run({**mine, "rounds": 3}) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_another_budget_in_the_same_folder_is_refused_and_changes_nothing(settings, undisturbed):
    before = outcome(undisturbed)
    mine = {**settings, "output_dir": str(undisturbed), "feature_dir": str(undisturbed / "features"), "budget": 5}
    assert run(mine) == 1
    assert outcome(undisturbed) == before
