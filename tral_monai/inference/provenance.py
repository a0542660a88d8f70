# SPDX-License-Identifier: Apache-2.0
"""One JSON file per slide: what was found, with what, how; its presence says that the slide is finished."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.inference.slide_writer import SlideEvents, SlideResult
from tral_monai.provenance import provenance

if TYPE_CHECKING:
    from tral_monai.inference.fingerprints import SlideContent
    from tral_monai.inference.slide_evaluator import SlideEvaluator

RECORD_SUFFIX = ".json"


def read_record(folder: str | Path, stem: str) -> dict[str, Any]:
    """Read a slide's record.

    Args:
        folder: the output folder.
        stem: the slide's name without its suffix.

    Returns:
        Its content, empty where there is none or where the file is not one.
    """
    try:
        record = json.loads((Path(folder) / f"{stem}{RECORD_SUFFIX}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


class ProvenanceWriter:
    """Writes ``<name>.json`` for every slide, after all its other files.

    It holds the slide (file name, size, mpp and where that came from, backend, SHA-256 of its content), the model
    (SHA-256 of the weights, its contract), the settings, the result's own description (for a tissue map: tiles, areas
    in mm2, tiles not analysed), seconds, the files written, versions and the package's commit. No folder of the machine
    is in it.

    Args:
        checkpoint: file that the weights came from; its name and SHA-256 are recorded.
        extra: more to record, such as the name of a study; plain data.

    Raises:
        ConfigError: ``extra`` cannot be written as JSON, or takes a key that the record has.
    """

    _OWN = (
        "slide",
        "model",
        "settings",
        "runtime",
        "result",
        "seconds",
        "files",
        "software",
        "finished_utc",
        "run_key",
    )

    def __init__(
        self, *, checkpoint: str | os.PathLike[str] | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.extra = dict(extra or {})
        self._software: dict[str, Any] | None = None  # both are found once per run: git is slow, and so is hashing
        self._checkpoint: dict[str, str] | None = None
        taken = sorted(set(self.extra) & set(self._OWN))
        if taken:
            raise ConfigError(f"extra must not use the record's own keys, but has {taken}")
        try:
            json.dumps(self.extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"extra must be plain data that JSON can hold: {error}") from error

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the moment when a slide's other files are written.

        Args:
            engine: the evaluator whose slides to record.
        """
        engine.add_event_handler(SlideEvents.WRITTEN, self)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Write the current slide's record.

        Args:
            engine: the evaluator.
        """
        result: SlideResult = engine.state.result
        result.record = self._record(engine, result)
        with atomic_path(engine.output_dir / f"{result.stem}{RECORD_SUFFIX}") as path:
            text = json.dumps(result.record, indent=2, ensure_ascii=False, allow_nan=False)
            path.write_text(text + "\n", encoding="utf-8")

    def _record(self, engine: SlideEvaluator, result: SlideResult) -> dict[str, Any]:
        slide = engine.state.slide
        contract = getattr(engine.network, "contract", None)
        if self._software is None:
            self._software = provenance()
            if self.checkpoint is not None:
                self._checkpoint = {"name": self.checkpoint.name, "sha256": file_sha256(self.checkpoint)}
        return {
            "slide": {
                "name": slide.name,
                "width_level0": slide.dimensions[0],
                "height_level0": slide.dimensions[1],
                "mpp_xy": list(slide.mpp_xy),
                "mpp_source": result.record["mpp_source"],
                "backend": slide.backend_name,
                **_content(result),
            },
            "model": {
                "class": type(engine.network).__name__,
                "weights_sha256": engine.weights_sha256,
                "checkpoint": self._checkpoint,
                "contract": contract.state_dict() if contract is not None else None,
            },
            "settings": engine.mapper.settings(),
            "runtime": engine.mapper.runtime(),
            "result": result.prediction.describe(),
            "seconds": round(result.seconds, 3),
            "files": [f"{result.stem}{suffix}" for suffix in engine.expected_suffixes],
            **self.extra,
            "software": {"versions": self._software["versions"], "commit": self._software["commit"]},
            "finished_utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "run_key": result.record["run_key"],
        }


def _content(result: SlideResult) -> dict[str, Any]:
    """What a later run knows the slide by: its hash, and a stamp by which it need not be hashed again."""
    content: SlideContent | None = result.record.get("content")
    return {} if content is None else dataclasses.asdict(content)
