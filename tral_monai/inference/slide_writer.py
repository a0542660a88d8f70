# SPDX-License-Identifier: Apache-2.0
"""What handlers of a slide run share: its events, the result of one slide, and the base of the writers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ignite.engine import EventEnum

from tral_monai.atomic_file import atomic_path

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator
    from tral_monai.slides.slide import Slide


class SlideEvents(EventEnum):
    """Moments in the work on one slide, in their order (failed and kept ones have no ``MAPPED``, ``WRITTEN``)."""

    SLIDE_OPENED = "slide_opened"
    """``state.slide`` is open and will be mapped: time to begin a file that is streamed. It may still fail."""
    TILES_MAPPED = "tiles_mapped"
    """The tiles of a block are there as ``state.tiles``, a ``MappedTiles``; only where a handler asked for them."""
    TILES_COMPLETED = "tiles_completed"
    """Some tiles are done: ``state.tiles_done`` of ``state.tiles_total``."""
    MAPPED = "mapped"
    """``state.result.prediction`` is there and the slide is still open as ``state.slide``: time to write files."""
    WRITTEN = "written"
    """All files of the slide are there except the one that says so."""
    RUN_ENDED = "run_ended"
    """The run is over, by whatever way: time to give back a terminal or close a file."""


@dataclasses.dataclass
class SlideResult:
    """One slide of a run.

    Attributes:
        name: file name of the slide, without its folder.
        stem: first part of the names of its files.
        status: ``mapped``, ``kept`` (finished in an earlier run) or ``failed``.
        prediction: the mapper's result where it was mapped now.
        error: why it failed, without folders.
        seconds: wall-clock seconds spent on it.
        record: what its provenance file holds, once written or read.
    """

    name: str
    stem: str
    status: Literal["mapped", "kept", "failed"] = "mapped"
    prediction: Any = None
    error: str | None = None
    seconds: float = 0.0
    record: dict[str, Any] = dataclasses.field(default_factory=dict)


class SlideWriter:
    """Base of the handlers that write one file (or folder) per slide, whole or not at all.

    A subclass sets ``suffix`` and implements :meth:`write`. Writers run in the order in which they are attached.
    """

    suffix: str
    whole: Callable[[Path], AbstractContextManager[Path]] = staticmethod(atomic_path)
    """What makes the output appear as a whole; ``staticmethod(atomic_folder)`` where it is a folder."""

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the moment when a slide is mapped, and let a later run know which file to expect.

        Args:
            engine: the evaluator whose slides to write.
        """
        engine.expect_file(self.suffix, self.settings())
        engine.add_event_handler(SlideEvents.MAPPED, self)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Write the current slide's file.

        Args:
            engine: the evaluator.
        """
        result: SlideResult = engine.state.result
        with self.whole(engine.output_dir / f"{result.stem}{self.suffix}") as path:
            self.write(path, engine.state.slide, result.prediction)

    def settings(self) -> dict[str, Any]:
        """What decides the file besides the prediction, as plain data; where it changes, a slide is done again."""
        return {}

    def write(self, path: Path, slide: Slide, prediction: Any) -> None:
        """Write the file of one slide.

        Args:
            path: where to write; it becomes the final file when this returns.
            slide: the slide, open.
            prediction: what the mapper made of it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement write()")
