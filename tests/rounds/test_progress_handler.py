# SPDX-License-Identifier: Apache-2.0
from io import StringIO

import pytest
from rich.console import Console

from tests.rounds.conftest import CLASSES
from tral_monai.rounds.engine import RoundEvents
from tral_monai.rounds.initial_labels import InitialLabels
from tral_monai.rounds.label_handler import LabelHandler
from tral_monai.rounds.ledger import ModelRecord, QueryRow
from tral_monai.rounds.oracles import ArchiveOracle
from tral_monai.rounds.progress_handler import ProgressHandler


class Round:
    """Trains in 12.4 s, scores 0.25 on val and 0.5 on test, and asks for one Stroma tile and two of any class."""

    def __init__(self, stop_in=None, evaluates=True):
        self._stop_in, self._evaluates = stop_in, evaluates

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self.train)
        engine.add_event_handler(RoundEvents.TRAINED, self.evaluate)
        engine.add_event_handler(RoundEvents.EVALUATED, self.ask)

    def train(self, engine):
        engine.ledger.record_model(engine.round, ModelRecord("model.pt", "ff", 12.4, 7, None))

    def evaluate(self, engine):
        for split, value in (("test", 0.5), ("val", 0.25)) if self._evaluates else ():
            engine.ledger.record_evaluation(engine.round, split, {"f1_macro": value, "f1_micro": 0.9}, [[1]], ["x"])

    def ask(self, engine):
        if engine.round == self._stop_in:
            engine.stop("[target] reached")
        if not engine.is_last_round:
            names = ["Stroma [mucosa]", None, None]
            ids = engine.pool.unlabelled[:3]
            engine.query = [QueryRow(int(i), "a.tif", 0, 0, n, 0.0, "") for i, n in zip(ids, names, strict=True)]


@pytest.fixture
def lines(make_engine, index):
    """What is printed in a run, line by line."""

    def run(rounds, step, title="tri_al", **options):
        out = StringIO()
        oracle = ArchiveOracle(index, CLASSES)
        console = Console(file=out, width=300, highlight=False)
        shown = ProgressHandler(title, console=console, **options)
        first = InitialLabels(index, oracle, CLASSES, per_class=1)
        # In the bundle's order: it stands before the training, whose start it tells.
        make_engine(rounds, first, shown, step, LabelHandler(oracle, index, CLASSES)).run()
        return out.getvalue().splitlines()

    return run


def test_a_run_and_going_on_with_it(lines):
    assert lines(1, Round()) == [
        "tri_al  12 tiles in the pool, 3 labelled, 1 rounds",
        "round 1/1  training on 3 labels ...",
        "round 1/1  macro F1 val 0.250, test 0.500  (7 epochs in 12 s)",
    ]
    assert lines(2, Round()) == [
        "tri_al  12 tiles in the pool, 3 labelled, 2 rounds, going on after 1 trained rounds",
        "round 1/2  macro F1 val 0.250, test 0.500  (7 epochs in 12 s)",
        "round 1/2  asked for 3 labels: 2 any class, 1 Stroma [mucosa]",
        "round 2/2  training on 6 labels ...",
        "round 2/2  macro F1 val 0.250, test 0.500  (7 epochs in 12 s)",
    ]


def test_why_a_run_ended_early(lines):
    assert lines(3, Round(stop_in=1))[-1] == "stopped after round 1: [target] reached"


def test_the_splits_asked_for(lines):
    assert lines(1, Round(), splits=("test",))[-1] == "round 1/1  macro F1 test 0.500  (7 epochs in 12 s)"


def test_a_round_without_any_figure(lines):
    assert lines(1, Round(evaluates=False))[-1] == "round 1/1  no macro F1  (7 epochs in 12 s)"


def test_a_title_is_no_markup(lines):
    assert lines(1, Round(), title="[/red] run")[0].startswith("[/red] run  12 tiles")


def test_it_prints_whole_lines_to_standard_output(make_engine, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    make_engine(1, ProgressHandler("a title that is long enough to be broken", splits=())).run()
    assert capsys.readouterr().out.splitlines()[0] == (
        "a title that is long enough to be broken  12 tiles in the pool, 0 labelled, 1 rounds"
    )
