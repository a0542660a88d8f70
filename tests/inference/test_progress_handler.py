# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.errors import SlideError
from tral_monai.inference.progress_handler import ProgressHandler
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_mapper import TissueMapper


def run(folder: Path, console: Console) -> None:
    mapper = TissueMapper(ColourNet(), tissue_method="paper")
    SlideEvaluator(
        SlideListDataset(str(folder)), mapper, folder / "maps", val_handlers=[ProgressHandler(console)]
    ).run()


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def test_slides_tiles_and_speed_are_shown(tmp_path: Path) -> None:
    write_slide(tmp_path / "first.tif", slide_pixels(("SSSSSS",) * 4))
    write_slide(tmp_path / "second.tif", slide_pixels(("SSSSSS",) * 4))
    console = terminal()
    run(tmp_path, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2/2" in shown
    assert "24/24" in shown
    assert "second.tif" in shown
    assert "tiles/s" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is given back


def test_the_terminal_is_given_back_when_the_run_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"no slide")
    console = terminal()
    with pytest.raises(SlideError):
        run(tmp_path, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_nothing_is_drawn_into_a_file(tmp_path: Path) -> None:
    write_slide(tmp_path / "first.tif", slide_pixels(("SSSSSS",) * 4))
    console = Console(file=io.StringIO())
    run(tmp_path, console)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
