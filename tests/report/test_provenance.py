# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

from tral_monai.report.provenance import provenance
from tral_monai.report.run_data import RunData


def test_provenance_of_the_small_run(make_run: Callable[..., RunData]) -> None:
    found = provenance(make_run())
    settings = dict(found.settings)
    assert settings["strategy"] == "tri_al_quota"
    assert settings["budget"] == "4"
    assert settings["commit"] == "abc123def456"
    assert "identity" not in settings
    assert found.versions == (("torch", "2.9.1"),)
    assert '"cohort": "…/cohort.csv"' in found.config
    assert '"learning_rate": 0.00015' in found.config
    first = found.models[0]
    assert (first.round, first.file, first.seconds, first.epochs, first.val_loss) == (1, "model.pt", 12.5, 7, 0.25)
    assert first.sha256 == "1".rjust(64, "0")
    assert [row.round for row in found.stages] == [1, 2]


def test_minutes_run_from_the_first_to_the_last_stage(make_run: Callable[..., RunData]) -> None:
    run = make_run(stages=[(1, "ROUND_STARTED"), (1, "TRAINED")])
    run.tables["events"]["at_utc"] = ["2026-01-01T10:00:00+00:00", "2026-01-01T10:01:30+00:00"]
    (row,) = provenance(run).stages
    assert row.minutes == 1.5
    assert [stage for stage, _ in row.stages] == ["ROUND_STARTED", "TRAINED"]


def test_a_run_that_recorded_little_still_has_provenance(make_run: Callable[..., RunData]) -> None:
    run = make_run(confusions={}, stages=[], info={"versions": None, "config": None})
    found = provenance(run)
    assert (found.versions, found.config, found.models, found.stages) == ((), "", (), ())
