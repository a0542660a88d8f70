# SPDX-License-Identifier: Apache-2.0
"""The features of every tile as HDF5, as CLAM and TRIDENT read them, streamed while the slide is being mapped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ignite.engine import Events

from tral_monai.atomic_file import output_errors
from tral_monai.errors import ConfigError
from tral_monai.inference.feature_spool import FeatureSpool
from tral_monai.inference.slide_writer import SlideEvents, SlideResult, SlideWriter
from tral_monai.slides.magnification import level0_per_tile, magnification_to_mpp, mpp_to_magnification

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator
    from tral_monai.slides.slide import Slide

_DTYPES = ("float32", "float16")
_CHUNK_BYTES = 1 << 20
_OF_MAPPER = ("tile_px", "stride_px", "magnifications", "classes")


class FeaturesWriter(SlideWriter):
    """Writes ``<name>_features.h5`` for every slide: a row per tile that was analysed, by row and column of the map.

    Datasets: ``features`` (n, F), ``coords`` (n, 2) int64 upper left corner (x, y) of the tile with the highest
    magnification in level-0 px, and, if asked for, ``probabilities`` (n, C) float32. The attributes of ``coords`` are
    TRIDENT's (``patch_size``, ``patch_size_level0``, ``level0_magnification``, ``target_magnification``, ``overlap``,
    ``name``, ``level0_width``, ``level0_height``) and CLAM's ``patch_level`` (0), with ``mpp`` of the tile and
    ``level0_mpp``; the file's are ``slide``, ``weights_sha256``, ``network`` and ``classes``. Without tissue there are
    no rows.

    The tiles wait in a temporary file until the slide is done, so that memory does not grow with the slide; the file
    needs its own size on disk twice for that time.

    Args:
        dtype: of the features: ``float32``, which CLAM needs, or ``float16``, half the size.
        probabilities: write them too.

    Raises:
        ConfigError: another dtype.
    """

    suffix = "_features.h5"

    def __init__(self, *, dtype: str = "float32", probabilities: bool = False) -> None:
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype must be one of {_DTYPES}, but is '{dtype}'")
        self.dtype, self.probabilities = dtype, probabilities
        self._spool: FeatureSpool | None = None
        self._attributes: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def attach(self, engine: SlideEvaluator) -> None:
        """Ask for features, and bind to the moments when a slide is opened, some tiles are mapped, and all are.

        Args:
            engine: the evaluator whose tiles to write.

        Raises:
            ConfigError: its mapper does not map tiles, or its network gives no features.
        """
        lacking = [name for name in _OF_MAPPER if not hasattr(engine.mapper, name)]
        if lacking:
            raise ConfigError(
                f"features are written for mappers of tiles, such as TissueMapper, but {type(engine.mapper).__name__} "
                f"has no {', '.join(lacking)}; leave the writer of features out"
            )
        if hasattr(engine.mapper, "check_features"):
            engine.mapper.check_features()
        engine.want_features()
        super().attach(engine)
        engine.add_event_handler(SlideEvents.SLIDE_OPENED, self._open)
        engine.add_event_handler(SlideEvents.TILES_MAPPED, self._append)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._discard)
        engine.add_event_handler(SlideEvents.RUN_ENDED, self._discard)

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"dtype": self.dtype, "probabilities": self.probabilities}

    def write(self, path: str | os.PathLike[str], slide: Slide, prediction: Any) -> None:
        """Write the tiles that were streamed since the slide was opened.

        Args:
            path: the file.
            slide: the slide.
            prediction: not used: the features are not in it.
        """
        import h5py

        assert self._spool is not None
        spool, (of_file, of_coords) = self._spool, self._attributes
        width, classes = spool.widths
        columns = {"features": (width, self.dtype), "coords": (2, "int64")}
        if self.probabilities:
            columns["probabilities"] = (classes, "float32")
        with h5py.File(path, "w") as file:
            for name, (size, dtype) in columns.items():
                rows = max(1, _CHUNK_BYTES // max(1, size * np.dtype(dtype).itemsize))
                chunks = (min(rows, len(spool)), size) if len(spool) else None
                file.create_dataset(name, shape=(len(spool), size), dtype=dtype, chunks=chunks)
            file.attrs.update(of_file)
            file["coords"].attrs.update(of_coords)
            rows = max(1, _CHUNK_BYTES // max(1, width * np.dtype(self.dtype).itemsize))
            to_corner = level0_per_tile(slide.mpp, of_coords["target_magnification"], of_coords["patch_size"]) / 2
            start = 0
            for records in spool.in_order(rows):
                part = slice(start, start + len(records))
                file["features"][part] = records["features"]
                file["coords"][part] = np.floor(records["centre_level0"] - to_corner + 0.5).astype(np.int64)
                if self.probabilities:
                    file["probabilities"][part] = records["probabilities"]
                start = part.stop

    def _open(self, engine: SlideEvaluator) -> None:
        result: SlideResult = engine.state.result
        slide, mapper = engine.state.slide, cast(Any, engine.mapper)
        tile_px, magnification = int(mapper.tile_px), float(max(mapper.magnifications))
        self._attributes = (
            {
                "slide": result.name,
                "network": type(engine.network).__name__,
                "weights_sha256": engine.weights_sha256,
                "classes": list(mapper.classes.model_classes),
            },
            {
                "name": result.stem,
                "patch_size": tile_px,
                "patch_level": 0,
                "patch_size_level0": round(level0_per_tile(slide.mpp, magnification, tile_px)),
                "overlap": max(0, tile_px - int(mapper.stride_px)),
                "target_magnification": magnification,
                "level0_magnification": mpp_to_magnification(slide.mpp),
                "mpp": magnification_to_mpp(magnification),
                "level0_mpp": slide.mpp,
                "level0_width": slide.dimensions[0],
                "level0_height": slide.dimensions[1],
            },
        )
        self._discard(engine)
        target = engine.output_dir / f"{result.stem}{self.suffix}"
        with output_errors(target):
            self._spool = FeatureSpool(target, self.dtype)

    def _append(self, engine: SlideEvaluator) -> None:
        assert self._spool is not None
        with output_errors(engine.output_dir / f"{engine.state.result.stem}{self.suffix}"):
            self._spool.append(engine.state.tiles)

    def _discard(self, engine: SlideEvaluator) -> None:
        if self._spool is not None:
            self._spool.discard()
            self._spool = None
