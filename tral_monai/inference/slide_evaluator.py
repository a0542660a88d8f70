# SPDX-License-Identifier: Apache-2.0
"""A MONAI evaluator whose iteration is one slide: open, map, let the writers write, go on; safe to leave alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from monai.engines.evaluator import Evaluator
from monai.engines.utils import IterationEvents

from tral_monai import __version__
from tral_monai.atomic_file import prepare_folder
from tral_monai.errors import ConfigError, MissingMppError, SlideError, TralError
from tral_monai.inference.engines.memory import is_out_of_memory
from tral_monai.inference.fingerprints import (
    SlideContent,
    recorded_content,
    require_unchanged,
    run_key,
    slide_content,
    weights_sha256,
)
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.older_files import remove_older_files
from tral_monai.inference.provenance import read_record
from tral_monai.inference.run_summary import lost_tiles, run_summary
from tral_monai.inference.slide_failure import failure_text, unexpected_text
from tral_monai.inference.slide_list import output_stem
from tral_monai.inference.slide_writer import SlideEvents, SlideResult
from tral_monai.inference.termination import orderly_termination
from tral_monai.slides.choose_backend import BackendName
from tral_monai.slides.slide import Slide, open_slide

FailOn = Literal["all", "any", "never"]


class SlideMapper(Protocol):
    """What turns an open slide into a prediction; :class:`~tral_monai.inference.tissue_mapper.TissueMapper` is one."""

    network: torch.nn.Module
    inferer: Any
    device: torch.device

    def settings(self) -> dict[str, Any]:
        """Everything but the weights that decides the prediction, as plain data."""

    def runtime(self) -> dict[str, Any]:
        """How the model is run, as plain data."""

    def map_slide(self, slide: Slide, *, on_progress: Any = None) -> Any:
        """The prediction of one slide, with a method ``describe()`` for its record.

        Only where a handler asks for tiles or features, ``on_tiles`` and ``want_features`` are given too; see
        :meth:`tral_monai.inference.tissue_mapper.TissueMapper.map_slide`.
        """


class SlideEvaluator(Evaluator):
    """Runs a mapper over slides. ``run()`` is what a bundle's ``inference.yaml`` calls.

    A slide that cannot be opened, has no mpp, or cannot be read is reported with its name and left out; the others go
    on. Errors of the settings, the checkpoint or the output folder end the run, and so do disagreement of an engine
    and a lack of memory. A slide is finished once its ``<name>.json`` is there, which is written last; with ``resume``
    a finished slide is not done again if its content, the weights, the settings and the package's version are the
    same, so the same command goes on after a kill. Before a slide is done again, what its record lists is removed.

    Handlers find the current slide as ``state.slide`` and its result as ``state.result``
    (:class:`~tral_monai.inference.slide_writer.SlideResult`), and bind to
    :class:`~tral_monai.inference.slide_writer.SlideEvents`. ``state.output`` is a list of one dict with ``image``,
    ``status``, ``error`` and ``pred``; ``state.metrics`` counts slides and tiles.

    Args:
        val_data_loader: entries with ``image`` (a path), one slide each: a ``SlideListDataset`` or a data loader of it.
        mapper: what to do with a slide.
        output_dir: folder of the results, made where it does not exist.
        mpp: micrometres per level-0 pixel of slides that record none.
        override_mpp: use ``mpp`` for every slide, whatever it records.
        backend: how slides are read; see :func:`tral_monai.slides.slide.open_slide`.
        resume: keep slides finished in an earlier run.
        fail_on: when ``run()`` ends with an error: if ``all`` slides failed, if ``any`` did, or ``never``.
        val_handlers: writers first, then the ``ProvenanceWriter``, then whatever else; MONAI's handlers work too.

    Raises:
        ConfigError: a setting is out of range, or the output folder cannot be written to.
    """

    def __init__(
        self,
        val_data_loader: Iterable[Mapping[str, Any]],
        mapper: SlideMapper,
        output_dir: str | Path,
        *,
        mpp: float | None = None,
        override_mpp: bool = False,
        backend: BackendName = "auto",
        resume: bool = True,
        fail_on: FailOn = "all",
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        if fail_on not in ("all", "any", "never"):
            raise ConfigError(f"fail_on must be 'all', 'any' or 'never', but is '{fail_on}'")
        if mpp is not None and (isinstance(mpp, bool) or not isinstance(mpp, int | float) or not mpp > 0):
            raise ConfigError(f"mpp must be a positive number of micrometres per pixel, but is {mpp!r}")
        if override_mpp and mpp is None:
            raise ConfigError("override_mpp needs the value to use; give mpp, such as 0.25 for a 40x scan")
        # Set before MONAI attaches the handlers, which ask for some of them.
        self.mapper = mapper
        self.network, self.inferer = mapper.network, mapper.inferer
        self.output_dir = prepare_folder(output_dir)
        self.mpp, self.override_mpp, self.backend = mpp, override_mpp, backend
        self.resume, self.fail_on = resume, fail_on
        self.results: list[SlideResult] = []
        self._expected_files: dict[str, dict[str, Any]] = {}
        self._wants_tiles = self._wants_features = False
        self._weights_sha256: str | None = None
        self._mapped_with: str | None = None  # the weights of the run before this one
        super().__init__(
            device=mapper.device,
            val_data_loader=val_data_loader,
            val_handlers=val_handlers,
            event_names=[SlideEvents],
            decollate=False,
        )
        self.state.result = self.state.slide = self.state.tiles = None
        self.state.tiles_done = self.state.tiles_total = 0

    @property
    def weights_sha256(self) -> str:
        """Key of the network's weights as they are in this run."""
        if self._weights_sha256 is None:
            self._weights_sha256 = weights_sha256(self.network)
            if self._mapped_with not in (None, self._weights_sha256) and hasattr(self.mapper, "reset"):
                self.mapper.reset()  # what an engine made of the older weights answers as they did
            self._mapped_with = self._weights_sha256
        return self._weights_sha256

    @property
    def expected_suffixes(self) -> tuple[str, ...]:
        """What a finished slide's file names end in, besides its record's."""
        return tuple(self._expected_files)

    def expect_file(self, suffix: str, settings: Mapping[str, Any] | None = None) -> None:
        """Let a slide count as finished only where this file is there, written with these settings.

        Args:
            suffix: what follows the slide's name, such as ``.geojson``.
            settings: what decides the file besides the prediction, as plain data.

        Raises:
            ConfigError: another writer writes it already.
        """
        if suffix in self._expected_files:
            raise ConfigError(f"two handlers write '<name>{suffix}'; remove one")
        self._expected_files[suffix] = dict(settings or {})

    def want_tiles(self) -> None:
        """Fire ``TILES_MAPPED`` for every block of tiles; a handler of that event calls this when it is attached."""
        self._wants_tiles = True

    def want_features(self) -> None:
        """The same, with the network's pooled features in ``state.tiles``."""
        self._wants_tiles = self._wants_features = True

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run over all slides.

        Args:
            global_epoch: as MONAI passes it.

        Raises:
            SlideError: slides failed, as ``fail_on`` says; the message names them.
        """
        self.results = []
        self._weights_sha256 = None
        try:
            with orderly_termination():
                super().run(global_epoch)
        finally:
            self.fire_event(SlideEvents.RUN_ENDED)
            for line in run_summary(self.results, self.state.epoch_length or 0):
                self.logger.info("%s", line)
        self._raise_if_failed()

    def _iteration(self, engine: SlideEvaluator, batchdata: Mapping[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        path = _path_of(batchdata)
        if self.results:
            self.results[-1].prediction = None  # its files are written; keeping maps would let memory grow
        result = SlideResult(name=path.name, stem=output_stem(path))
        if any(other.stem == result.stem for other in self.results):
            raise ConfigError(f"two slides would write '{result.stem}.json'; run them with different output folders")
        self.state.result = result
        self.state.tiles_done = self.state.tiles_total = 0
        started = time.perf_counter()
        try:
            self._work_on(path, result, started)
        except SlideError as error:
            result.status, result.prediction = "failed", None
            result.error = failure_text(error, path)
        finally:
            self.state.slide = self.state.tiles = None
        result.seconds = time.perf_counter() - started
        self.results.append(result)
        self._report(result)
        return [{"image": result.name, "status": result.status, "error": result.error, "pred": result.prediction}]

    def _work_on(self, path: Path, result: SlideResult, started: float) -> None:
        record = read_record(self.output_dir, result.stem)
        content = slide_content(path, recorded_content(record))
        key = self._key(content)
        if self.resume and record.get("run_key") == key and self._files_are_there(result.stem):
            result.status, result.record = "kept", record
            return
        remove_older_files(self.output_dir, result.stem, record)
        try:
            slide, mpp_source = self._open(path)
            with slide:
                self.state.slide = slide
                result.record = {"run_key": key, "mpp_source": mpp_source, "content": content}
                self.fire_event(SlideEvents.SLIDE_OPENED)
                result.prediction = self.mapper.map_slide(slide, on_progress=self._on_progress, **self._streaming())
                require_unchanged(path, content)
                self.fire_event(IterationEvents.MODEL_COMPLETED)
                self.fire_event(SlideEvents.MAPPED)
                result.seconds = time.perf_counter() - started
                self.fire_event(SlideEvents.WRITTEN)
        except TralError:
            raise
        except Exception as error:
            if is_out_of_memory(error):  # not in the model, which gives advice of its own
                raise ConfigError(
                    f"the memory is used up ({type(error).__name__} at {result.name}); lower num_workers, "
                    "end other programs, or leave this slide out if it alone does so, and run the same command again"
                ) from error
            # Nobody is there at night to restart a run over hundreds of slides; the log has the whole story.
            self.logger.exception("unexpected error with slide %s", result.name)
            raise SlideError(unexpected_text(result.name, error)) from error

    def _streaming(self) -> dict[str, Any]:
        """What to ask of the mapper beyond the prediction: nothing where no handler looks at single tiles."""
        if not self._wants_tiles:
            return {}
        return {"on_tiles": self._on_tiles, "want_features": self._wants_features}

    def _on_tiles(self, tiles: MappedTiles) -> None:
        self.state.tiles = tiles
        self.fire_event(SlideEvents.TILES_MAPPED)

    def _open(self, path: Path) -> tuple[Slide, str]:
        if self.override_mpp:
            return open_slide(path, self.backend, self.mpp), "given"
        try:
            return open_slide(path, self.backend), "file"
        except MissingMppError:
            if self.mpp is None:
                raise
        return open_slide(path, self.backend, self.mpp), "given"

    def _key(self, content: SlideContent) -> str:
        return run_key(
            {
                "slide": content.sha256,
                "weights": self.weights_sha256,
                "settings": self.mapper.settings(),
                "files": self._expected_files,
                "mpp": self.mpp,
                "override_mpp": self.override_mpp,
                "version": __version__,
            }
        )

    def _files_are_there(self, stem: str) -> bool:
        return all((self.output_dir / f"{stem}{suffix}").exists() for suffix in self._expected_files)

    def _on_progress(self, done: int, total: int) -> None:
        self.state.tiles_done, self.state.tiles_total = done, total
        self.fire_event(SlideEvents.TILES_COMPLETED)

    def _report(self, result: SlideResult) -> None:
        for status in ("mapped", "kept", "failed"):
            count = sum(other.status == status for other in self.results)
            self.state.metrics[f"slides_{status}"] = count
        position = f"{len(self.results)}/{self.state.epoch_length}"
        if result.status == "failed":
            self.logger.error("slide %s failed: %s", position, result.error)
        elif result.status == "kept":
            self.logger.info("slide %s %s: finished already", position, result.name)
        else:
            self.state.metrics["tiles"] = self.state.metrics.get("tiles", 0) + self.state.tiles_done
            rate = self.state.tiles_done / max(result.seconds, 1e-9)
            self.logger.info(
                "slide %s %s: %d tiles in %.1f s (%.0f tiles/s)",
                position, result.name, self.state.tiles_done, result.seconds, rate,
            )  # fmt: skip
            if lost_tiles(result):
                reason = next(iter(getattr(result.prediction, "failures", ())), "")
                self.logger.warning(
                    "slide %s %s: %d tiles cannot be decoded and are marked as not analysed; %s",
                    position, result.name, lost_tiles(result), reason,
                )  # fmt: skip
            elif not self.state.tiles_total:
                self.logger.warning("slide %s %s: nothing to look at was found on it", position, result.name)

    def _raise_if_failed(self) -> None:
        failed = [result for result in self.results if result.status == "failed"]
        if not failed or self.fail_on == "never" or (self.fail_on == "all" and len(failed) < len(self.results)):
            return
        lines = "\n".join(f"  {result.error}" for result in failed[:20])
        more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
        raise SlideError(f"{len(failed)} of {len(self.results)} slides failed:\n{lines}{more}")


def _path_of(batchdata: Mapping[str, Any]) -> Path:
    image = batchdata["image"]
    if not isinstance(image, str | Path):  # a data loader's batch of one
        if len(image) != 1:
            raise ConfigError(
                f"a slide run takes one slide at a time, but the batch has {len(image)}; use batch_size=1"
            )
        image = image[0]
    return Path(image)
