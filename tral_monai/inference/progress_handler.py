# SPDX-License-Identifier: Apache-2.0
"""How far a slide run is: a bar on a terminal, elsewhere a line in the log now and then."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from typing import TYPE_CHECKING, TextIO

from ignite.engine import Events
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Task as RichTask
from rich.text import Text

from tral_monai.errors import ConfigError
from tral_monai.inference.run_estimate import RunEstimate, in_words
from tral_monai.inference.slide_writer import SlideEvents, SlideResult

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator


class _SpeedColumn(ProgressColumn):
    """Tiles per second of the slide's task, nothing for the task of all slides."""

    def render(self, task: RichTask) -> Text:
        speed = task.fields.get("speed")
        return Text(f"{speed:,.0f} tiles/s" if speed is not None else "", style="progress.data.speed")


class _LeftColumn(ProgressColumn):
    """Time left: of the slide in its task, of the whole run in the task of all slides."""

    def render(self, task: RichTask) -> Text:
        seconds = task.fields.get("left")
        shown = "-:--:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
        return Text(f"{shown} left", style="progress.remaining")


class ProgressHandler:
    """Shows slides, tiles, tiles per second and the time left for the whole run.

    On a terminal it draws bars. Elsewhere, such as in a file or under a job scheduler, a line in the evaluator's log
    says the same every now and then, so that a long slide shows that it goes on.

    Args:
        console: where to draw; standard error by default.
        log_seconds: least time between two lines in the log.

    Raises:
        ConfigError: ``log_seconds`` is negative.
    """

    def __init__(self, console: Console | None = None, *, log_seconds: float = 30.0) -> None:
        if log_seconds < 0:
            raise ConfigError(f"log_seconds must be 0 or more, but is {log_seconds}")
        self.console = console if console is not None else Console(stderr=True)
        self.log_seconds = log_seconds
        self._estimate = RunEstimate(0)
        self._progress: Progress | None = None
        self._slides = self._tiles = TaskID(0)
        self._logged = 0.0
        self._diverted: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the start and the end of the run and to what happens between.

        Args:
            engine: the evaluator to show.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._slide_started)
        engine.add_event_handler(SlideEvents.TILES_COMPLETED, self)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._slide_completed)
        engine.add_event_handler(SlideEvents.RUN_ENDED, self._stop)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Show how far the current slide is.

        Args:
            engine: the evaluator.
        """
        done, total = engine.state.tiles_done, engine.state.tiles_total
        self._estimate.tiles_done(done, total)
        if self._progress is not None:
            self._draw(engine.state.result.name, done, total)
        elif time.monotonic() - self._logged >= self.log_seconds:
            self._log(engine, done, total)

    def _draw(self, name: str, done: int, total: int) -> None:
        assert self._progress is not None
        speed = self._estimate.tiles_per_second
        if done == 0:
            self._progress.reset(self._tiles, description=name, total=total)
        left = (total - done) / speed if speed else None
        self._progress.update(self._tiles, completed=done, total=total, visible=True, speed=speed, left=left)
        self._progress.update(self._slides, left=self._estimate.seconds_left)

    def _log(self, engine: SlideEvaluator, done: int, total: int) -> None:
        result: SlideResult = engine.state.result
        speed, left = self._estimate.tiles_per_second, self._estimate.seconds_left
        engine.logger.info(
            "slide %d/%d %s: %d of %d tiles%s%s",
            self._estimate.slides_done + 1, self._estimate.slides, result.name, done, total,
            f", {speed:,.0f} tiles/s" if speed is not None else "",
            f", about {in_words(left)} left for all slides" if left is not None else "",
        )  # fmt: skip
        self._logged = time.monotonic()

    def _start(self, engine: SlideEvaluator) -> None:
        self._estimate = RunEstimate(engine.state.epoch_length or 0)
        self._logged = time.monotonic()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeElapsedColumn(),
            _LeftColumn(),
            console=self.console,
            redirect_stdout=sys.stdout.isatty(),  # else it is a file or a pipe, which gets what is meant for it
        )
        self._slides = self._progress.add_task("slides", total=engine.state.epoch_length)
        self._tiles = self._progress.add_task("", total=None, visible=False)
        self._progress.start()
        self._divert(engine.logger)

    def _divert(self, logger: logging.Logger | None) -> None:
        """Let log lines that go to the terminal stand above the bars, which would be torn otherwise."""
        while logger is not None:
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler.stream, FileProxy):
                    stream = handler.stream
                    if stream is not None and stream.isatty():  # a file that is opened late has none yet
                        handler.setStream(FileProxy(self.console, stream))
                        self._diverted.append((handler, stream))
            logger = logger.parent if logger.propagate else None

    def _slide_started(self, engine: SlideEvaluator) -> None:
        self._estimate.slide_started()

    def _slide_completed(self, engine: SlideEvaluator) -> None:
        result: SlideResult = engine.state.result
        self._estimate.slide_done(worked=result.status != "kept")
        if self._progress is not None:
            left = self._estimate.seconds_left
            self._progress.update(self._slides, completed=self._estimate.slides_done, left=left)

    def _stop(self, engine: SlideEvaluator) -> None:
        while self._diverted:
            handler, stream = self._diverted.pop()
            handler.setStream(stream)
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
