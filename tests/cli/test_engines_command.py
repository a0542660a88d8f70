# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.__main__ import main


def test_the_table_says_what_runs_and_why_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["engines", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    assert ["torch", "fp32", "yes, the reference"] in lines
    assert any(line[:2] == ["torch", "fp16"] and line[2].startswith("fp16 is for GPUs") for line in lines)
    assert sum(line[0] == "tensorrt" for line in lines) >= 3
