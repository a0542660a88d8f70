# SPDX-License-Identifier: Apache-2.0
"""What both evaluations' writers share."""

from __future__ import annotations

import json

import pytest
from ignite.engine import Engine
from rich.console import Console
from rich.table import Table

from tral_monai.errors import ConfigError
from tral_monai.report.result_writer import ResultWriter, number_or_null, shown


class Two(ResultWriter):
    """An evaluation whose result is 2."""

    def figures(self):
        return {"two": 2}

    def table(self):
        table = Table("figure")
        table.add_row("two")
        return table


def test_the_file_says_what_was_found_with_which_weights(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"abc")
    console = Console(record=True, width=80)
    writer = Two(tmp_path / "out", checkpoint=tmp_path / "model.pt", info={"fold": 1}, title="test", console=console)
    engine = Engine(lambda engine, batch: None)
    writer.attach(engine)
    engine.run([0])
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (record["two"], record["info"]) == (2, {"fold": 1})
    # SHA-256 of b"abc", FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert record["checkpoint"] == {"name": "model.pt", "sha256": expected}
    assert str(tmp_path) not in json.dumps(record)
    text = console.export_text()
    assert text.startswith("test")
    assert "two" in text


def test_info_must_be_plain_data(tmp_path):
    with pytest.raises(ConfigError, match="info must hold plain values that JSON knows, but .*set"):
        Two(tmp_path, info={"classes": {1}})


def test_an_undefined_figure_is_null_and_a_dash():
    assert (number_or_null(float("nan")), shown(float("nan"))) == (None, "-")
    assert (number_or_null(0.25), shown(0.25)) == (0.25, "0.250")
