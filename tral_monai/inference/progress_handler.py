# SPDX-License-Identifier: Apache-2.0
"""A progress bar for a slide run: slides, and tiles of the current slide with their speed and the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ignite.engine import Events
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

from tral_monai.inference.slide_writer import SlideEvents, SlideResult

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator


class _TileSpeedColumn(ProgressColumn):
    """Tiles per second of the slide's task, nothing for the task of all slides."""

    def render(self, task: RichTask) -> Text:
        if not task.fields.get("tiles") or not task.completed or not task.elapsed:
            return Text("")
        return Text(f"{task.completed / task.elapsed:,.0f} tiles/s", style="progress.data.speed")


class ProgressHandler:
    """Shows a bar on a terminal; elsewhere nothing, the evaluator's log lines tell the same.

    Args:
        console: where to draw; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else Console(stderr=True)
        self._progress: Progress | None = None
        self._slides = self._tiles = TaskID(0)

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the start and the end of the run and to what happens between.

        Args:
            engine: the evaluator to show.
        """
        if not self.console.is_terminal:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(SlideEvents.TILES_COMPLETED, self)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._slide_completed)
        engine.add_event_handler(SlideEvents.RUN_ENDED, self._stop)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Show how far the current slide is.

        Args:
            engine: the evaluator.
        """
        if self._progress is None:
            return
        result: SlideResult = engine.state.result
        done, total = engine.state.tiles_done, engine.state.tiles_total
        if done == 0:
            self._progress.reset(self._tiles, description=result.name, total=total)
        self._progress.update(self._tiles, completed=done, total=total, visible=True)

    def _start(self, engine: SlideEvaluator) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _TileSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._slides = self._progress.add_task("slides", total=engine.state.epoch_length)
        self._tiles = self._progress.add_task("", total=None, visible=False, tiles=True)
        self._progress.start()

    def _slide_completed(self, engine: SlideEvaluator) -> None:
        if self._progress is not None:
            self._progress.update(self._slides, completed=len(engine.results))

    def _stop(self, engine: SlideEvaluator) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
