# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

import tral_monai
from tral_monai.__main__ import main


def test_it_prints_where_the_app_lies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == Path(tral_monai.__file__).resolve().parent / "label_app"
    assert "PathologyApp" in (folder / "main.py").read_text()


def test_into_makes_a_folder_that_starts_the_app(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the second time it is there already
        assert main(["app", "--into", str(tmp_path / "app")]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "app")
    assert "from tral_monai.label_app.app import PathologyApp" in (tmp_path / "app" / "main.py").read_text()


def test_into_does_not_overwrite_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "main.py").write_text("print('mine')\n")
    assert main(["app", "--into", str(tmp_path)]) != 0
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "main.py").read_text() == "print('mine')\n"
