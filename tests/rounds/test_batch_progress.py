# SPDX-License-Identifier: Apache-2.0
from ignite.engine import Engine

from tral_monai.rounds.batch_progress import BatchProgress


def test_it_counts_the_batches_of_each_epoch(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "tral_monai.rounds.batch_progress.progress_bar",
        lambda description: lambda done, total: seen.append((description, done, total)),
    )
    engine = Engine(lambda *_: None)
    BatchProgress("batches").attach(engine)
    engine.run([0, 0, 0], max_epochs=2)
    assert seen == [("batches", done, 3) for done in (1, 2, 3, 1, 2, 3)]


def test_it_draws_nothing_where_there_is_no_terminal(capfd):
    engine = Engine(lambda *_: None)
    BatchProgress("batches").attach(engine)
    engine.run([0, 0])
    assert "batches" not in "".join(capfd.readouterr())
