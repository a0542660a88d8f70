# SPDX-License-Identifier: Apache-2.0
"""kill -9 at the stages of a round on nuclei, run again: ledger, budget and final choice are as without the kill."""

import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.killed_run import run
from tests.rounds.nuclei.conftest import BACKBONE, TINY
from tral_monai.data.generated.fields import generate_fields
from tral_monai.rounds.ledger import Ledger

BUNDLE = Path(__file__).parents[2] / "bundles" / "pathology_open_set_nucleus_detection"
LEDGER = "tral_monai.rounds.ledger:Ledger."

# Where the process dies. The second call of a record is round 2's, unless the comment says otherwise.
STAGES = {
    "first labels not yet recorded": (LEDGER + "record_labels", "before", 1),
    "target trained, not yet recorded": (LEDGER + "record_model", "before", 2),
    "target trained, auxiliary not": (LEDGER + "record_model", "after", 1),
    "auxiliary trained, not yet recorded": (LEDGER + "record_auxiliary_model", "before", 1),
    "both trained": (LEDGER + "record_auxiliary_model", "after", 1),
    "evaluated": (LEDGER + "record_evaluation", "after", 1),
    "query recorded": (LEDGER + "record_query", "after", 1),
    "answered, nuclei not yet recorded": (LEDGER + "record_labels", "before", 2),  # first labels, round 1
    "labelled": (LEDGER + "record_labels", "after", 2),
}
# The steps that only nuclei have; the others are killed on tissue too, and here by `make test-slow`.
QUICK = {
    "target trained, auxiliary not",
    "auxiliary trained, not yet recorded",
    "query recorded",
    "answered, nuclei not yet recorded",
}


def outcome(folder) -> dict[str, object]:
    """All that a run decided: choices with scores, labels, nuclei, models, metrics. Times and paths are left out."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        tables = {name: ledger.table(name) for name in ("queries", "labels", "nuclei")}
        for name in ("models", "auxiliary_models"):
            tables[name] = ledger.table(name).drop(columns=["seconds"])
        metrics = ledger.table("metrics")
        tables["metrics"] = metrics.assign(value=metrics["value"].astype(str))  # NaN is equal to nothing
        return {name: table.to_dict("records") for name, table in tables.items()}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    generate_fields(folder, n_fields=8, field_px=128, mpp=0.5, patients=4, seed=0)
    return {
        "bundle_root": str(BUNDLE),
        "dataset": "generated",
        "dataset_dir": str(folder),
        "fov_px": 64,
        "folds": 4,
        "strategy": "osal_nd",
        "rounds": 2,
        "query_fraction": None,
        "budget": 3,
        "initial_fraction": 0.25,
        "seed": 7,
        "device": "cpu",
        "backbone": BACKBONE,
        "network_options": TINY,
        "max_epochs": 1,
        "updates_per_epoch": 2,
        "batch_size": 2,
        "report": False,
    }


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run({**settings, "output_dir": str(folder)}) == 0
    return folder


def test_the_undisturbed_run_spends_its_budget(undisturbed):
    labels, nuclei = (pd.DataFrame(outcome(undisturbed)[name]) for name in ("labels", "nuclei"))
    assert labels.groupby("round").size().to_dict() == {0: 6, 1: 3}
    assert labels["cost_labels"].sum() == len(nuclei) > 0
    assert len(outcome(undisturbed)["auxiliary_models"]) == 1  # none where nothing is asked any more


@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]
)
def test_a_killed_run_goes_on_to_the_same_end(stage, settings, undisturbed, tmp_path):
    mine = {**settings, "output_dir": str(tmp_path / "run")}
    assert run(mine, STAGES[stage]) == -signal.SIGKILL
    assert run(mine) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)
    assert (tmp_path / "run" / "model.pt").read_bytes() == (undisturbed / "model.pt").read_bytes()
