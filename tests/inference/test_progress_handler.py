# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.errors import ConfigError, SlideError
from tral_monai.inference.progress_handler import ProgressHandler
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.slide_writer import SlideEvents
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


def test_the_time_left_is_of_the_whole_run(tmp_path: Path) -> None:
    for name in "abc":
        write_slide(tmp_path / f"{name}.tif", slide_pixels(("SSSSSS",) * 4))
    seen: list[tuple[float | None, float | None]] = []
    handler = ProgressHandler(terminal())

    class Look:
        def attach(self, engine: SlideEvaluator) -> None:
            engine.add_event_handler(SlideEvents.MAPPED, self)

        def __call__(self, engine: SlideEvaluator) -> None:
            progress = handler._progress
            assert progress is not None
            slides, tiles = progress.tasks
            seen.append((slides.fields["left"], tiles.fields["left"]))

    mapper = TissueMapper(ColourNet(), tissue_method="paper")
    SlideEvaluator(SlideListDataset(str(tmp_path)), mapper, tmp_path / "maps", val_handlers=[handler, Look()]).run()
    assert [tiles for _, tiles in seen] == [0.0] * 3  # the slide is done, the run is not
    assert all(left > 0 for left, _ in seen[:2] if left is not None)
    assert seen[0][0] is not None
    assert seen[2][0] == 0.0


def test_nothing_is_drawn_into_a_file_but_the_log_shows_life(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_slide(tmp_path / "first.tif", slide_pixels(("SSSSSS",) * 4))
    write_slide(tmp_path / "second.tif", slide_pixels(("SSSSSS",) * 4))
    console = Console(file=io.StringIO())
    mapper = TissueMapper(ColourNet(), tissue_method="paper")

    def lines(log_seconds: float, output: str) -> list[str]:
        caplog.clear()
        handler = ProgressHandler(console, log_seconds=log_seconds)
        data = SlideListDataset(str(tmp_path))
        with caplog.at_level(logging.INFO):
            SlideEvaluator(data, mapper, tmp_path / output, val_handlers=[handler]).run()
        return [record.getMessage() for record in caplog.records if " tiles, " in record.getMessage()]

    often = lines(0.0, "often")
    expected = r"slide 1/2 first\.tif: 24 of 24 tiles, [\d,]+ tiles/s, about .* left for all slides"
    assert any(re.fullmatch(expected, line) for line in often)
    assert any(line.startswith("slide 2/2 second.tif: 24 of 24 tiles") for line in often)
    assert lines(30.0, "seldom") == []
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_log_lines_stand_above_the_bars(tmp_path: Path) -> None:
    """They were written behind the bar, in the same line, and the bar was then drawn over them."""
    import pty

    write_slide(tmp_path / "first.tif", slide_pixels(("SSSSSS",) * 4))
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as screen:
        handler = logging.StreamHandler(screen)
        logger = logging.getLogger("ignite.engine.engine.SlideEvaluator")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            run(tmp_path, Console(file=screen, force_terminal=True, width=120, color_system=None))
        finally:
            logger.removeHandler(handler)
        assert handler.stream is screen
        shown = os.read(master, 1 << 20).decode()
    os.close(master)
    (before,) = re.findall(r"([^\n]*)slide 1/1 first\.tif: 24 tiles", shown)
    assert "left" not in re.split(r"\x1b\[2K", before)[-1]


def test_a_log_file_that_is_opened_late_is_left_alone(tmp_path: Path) -> None:
    """Such a handler has no stream before its first line, which ended the run."""
    write_slide(tmp_path / "first.tif", slide_pixels(("SS",)))
    handler = logging.FileHandler(tmp_path / "run.log", delay=True)
    logging.getLogger().addHandler(handler)
    console = terminal()
    try:
        run(tmp_path, console)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert "1/1" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_name_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    write_slide(tmp_path / "[bold]a.tif", slide_pixels(("SS",) * 2))
    console = terminal()
    run(tmp_path, console)
    assert "[bold]a.tif" in console.file.getvalue()  # type: ignore[attr-defined]


def test_log_seconds_is_checked() -> None:
    with pytest.raises(ConfigError, match="log_seconds must be 0 or more, but is -1"):
        ProgressHandler(log_seconds=-1)
