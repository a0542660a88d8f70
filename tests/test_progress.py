# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.progress import progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """Let rich take the captured standard error for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def test_it_draws_count_and_total_and_goes_away(terminal, capsys):
    update = progress_bar("features")
    for done in range(1, 4):
        update(done, 3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "features" in shown.err
    assert "3/3" in shown.err
    erase, show_cursor = "\x1b[2K", "\x1b[?25h"
    assert shown.err.endswith(erase)
    assert show_cursor in shown.err


def test_it_begins_anew_after_the_last_one(terminal, capsys):
    update = progress_bar("slides")
    update(1, 1)
    capsys.readouterr()
    update(5, 5)
    assert "5/5" in capsys.readouterr().err


def test_nothing_to_do(terminal, capsys):
    progress_bar("slides")(0, 0)
    assert "0/0" in capsys.readouterr().err


def test_nothing_is_drawn_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    update = progress_bar("features")
    update(1, 2)
    update(2, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ""
