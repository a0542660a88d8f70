# SPDX-License-Identifier: Apache-2.0
"""active_learning.yaml with the overlay for a machine without a GPU, from the cohort to the report."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from tests.bundles.bundle_files import BUNDLE, CONFIGS, CPU, SMALL
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.bundle_run import run_workflow
from tral_monai.rounds.ledger import Ledger

CLASSES = ("Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
F1 = [*(f"{name}_f1" for name in CLASSES), "f1_micro", "f1_macro"]


def test_the_run_folder_holds_what_a_run_promises(run_folder):
    wanted = {"ledger.sqlite", "summary.csv", "queries.csv", "model.pt", "report.html", "index.parquet", "rounds"}
    assert wanted <= {path.name for path in run_folder.iterdir()}
    assert not list(run_folder.rglob("*.tmp"))


def test_the_summary(run_folder):
    summary = pd.read_csv(run_folder / "summary.csv")
    assert list(summary.columns) == ["round", "split", "labels", *F1]
    # Two of each of five classes to begin with, then eight.
    assert list(zip(summary["round"], summary["split"], summary["labels"], strict=True)) == [
        *((1, "val", 10), (1, "test", 10), (2, "val", 18), (2, "test", 18))
    ]
    assert summary[F1].stack().between(0, 1).all()


def test_the_queries(run_folder):
    queries = pd.read_csv(run_folder / "queries.csv")
    assert list(queries.columns) == ["round", "slide", "x_level0", "y_level0", "class_asked", "class_given", "score"]
    assert len(queries) == 8
    assert set(queries["round"]) == {1}
    # tri_al_iter asks for classes, and the oracle with pools sorted by class gives what is asked for.
    assert (queries["class_asked"] == queries["class_given"]).all()
    pool = pd.read_parquet(run_folder / "index.parquet").query("split == 'train'")
    merged = queries.merge(pool, on=["slide", "x_level0", "y_level0"])
    assert (merged["class"] == merged["class_given"]).all()
    assert len(merged) == 8


def test_the_query_goes_by_the_false_negative_rates(run_folder):
    with Ledger(run_folder / "ledger.sqlite") as ledger:
        confusion = pd.DataFrame(ledger.confusion(1, "val", CLASSES), index=CLASSES, columns=CLASSES)
        asked = ledger.table("queries")["class_asked"].value_counts()
    rates = 1 - pd.Series({name: confusion.loc[name, name] for name in CLASSES}) / confusion.sum(axis=1)
    # No class is asked for that the model always finds, and each quota is within one of its exact share or capped.
    assert set(asked.index) <= set(rates.index[rates > 0])
    pool = pd.read_parquet(run_folder / "index.parquet").query("split == 'train'")["class"].value_counts() - 2
    shares = 8 * rates / rates.sum()
    for name, count in asked.items():
        assert abs(count - shares[name]) < 1 or count == pool[name] or (pool < shares).any()


def test_the_model_is_the_best_rounds(run_folder):
    network = load_checkpoint(run_folder / "model.pt")
    assert network.classes == CLASSES
    assert network.frozen
    assert network.class_colors["Urothelium"] == (245, 130, 48)
    summary = pd.read_csv(run_folder / "summary.csv").query("split == 'val'").set_index("round")["f1_macro"]
    best = max(summary.index, key=lambda number: (summary[number], number))
    published = (run_folder / "model.pt").read_bytes()
    assert published == (run_folder / "rounds" / f"round_{best:03d}" / "model.pt").read_bytes()


def test_the_report(run_folder):
    html = (run_folder / "report.html").read_text()
    assert "tri_al_iter" in html
    assert str(run_folder) not in html


@pytest.fixture
def standing_still(tiny_cohort, tmp_path, feature_dir, cpu_weights):
    """A run of two rounds that learn nothing; gives the classifiers that its rounds end with."""

    def run(**overrides):
        settings = {"bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(tmp_path)}
        settings |= {"feature_dir": str(feature_dir), "device": "$torch.device('cpu')", "strategy": "random"}
        settings |= {"rounds": 2, "budget": 3, "initial_per_class": 2, "max_epochs": 1, "learning_rate": 0.0}
        run_workflow([CONFIGS / "active_learning.yaml", CPU], **{**settings, **cpu_weights, **overrides})
        return [classifier(path) for path in sorted((tmp_path / "rounds").glob("*/model.pt"))]

    return run


def classifier(checkpoint):
    weights = load_checkpoint(checkpoint).state_dict()
    return weights[[name for name in weights if name.startswith("head.") and name.endswith("weight")][-1]]


def test_with_warm_start_a_round_begins_where_the_last_one_ended(standing_still):
    first, second = standing_still(warm_start=True)
    assert torch.equal(first, second)


def test_without_warm_start_each_round_begins_anew(standing_still):
    first, second = standing_still(warm_start=False)
    assert not torch.equal(first, second)


def test_a_run_begins_from_the_model_of_another_hospital(standing_still, run_folder):
    first, second = standing_still(warm_start=True, initial_checkpoint=str(run_folder / "model.pt"))
    assert torch.equal(first, classifier(run_folder / "model.pt"))
    assert torch.equal(second, first)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"strategy": "tri_al_itre"}, StrategyError, "No strategy is called 'tri_al_itre'. Did you mean tri_al_iter"),
        ({"oracle": "teacher"}, ConfigError, "no oracle is called 'teacher'"),
        ({"initial_fraction": 0.5}, ConfigError, "give either per_class or fraction"),
        ({"rounds": 0}, ConfigError, "rounds must be 1 or more"),
        ({"budgets": 5}, ConfigError, "have no id"),
        ({"class_map": "kidney"}, ConfigError, "class map kidney: cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(overrides, error, message, tiny_cohort, tmp_path):
    with pytest.raises(error, match=message):
        run_workflow(
            [CONFIGS / "active_learning.yaml"],
            **{"bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(tmp_path), **SMALL},
            **{"device": "$torch.device('cpu')", **overrides},
        )
    assert not (tmp_path / "model.pt").exists()
