# SPDX-License-Identifier: Apache-2.0
"""A site's model as a MONAI Label infer task: regions and whole slides, and single pictures."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from tral_monai.errors import BusyError, ConfigError, UnknownItemError
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.mask_cache import MaskCache
from tral_monai.inference.slide_window import Rectangle, SlideWindow
from tral_monai.label_app.image_answer import MAX_PX, extension_of, label_map, write_label_map
from tral_monai.label_app.image_source import ImageSource
from tral_monai.label_app.wsi_answer import json_answer
from tral_monai.label_app.wsi_request import WsiRequest, output_of, parse_wsi_request
from tral_monai.label_app.wsi_result import Shapes, WsiResult, joined_map, nucleus_shapes, tissue_names, tissue_shapes
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.slide_grid import is_field
from tral_monai.slides.slide import Slide

logger = logging.getLogger(__name__)

_DESCRIPTIONS = {
    "tissue": "Tissue classes of slides, from tiles at three magnifications (TRI-AL)",
    "nuclei": "Nuclei of known classes on slides and fields (OSAL-ND)",
}
_OPTIONS: dict[str, dict[str, float]] = {"tissue": {"undefined_below": 0.6}, "nuclei": {"min_score": 0.5}}
_REPORT_SECONDS = 10.0
_MASKS_KEPT = 8  # of at most some 10 MB
_PATIENCE_S = 600.0


class SiteInferTask(InferTask):
    """Infers with the current model of a task. One inference runs at a time; others wait, ten minutes at most.

    The type is ``segmentation`` for nuclei as well: 3D Slicer lists it, and for ``detection`` it would send boxes in
    space in place of label maps when it saves.

    Args:
        task: the task of the site.
        allowed: whether a file may be read, by its path; None allows what lies in the studies folder.
    """

    def __init__(self, task: TaskSite, *, allowed: Callable[[Path], bool] | None = None) -> None:
        names = tissue_names(task.classes) if task.name == "tissue" else task.classes
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={name: value for value, name in enumerate(names, 1)},
            dimension=2,
            description=_DESCRIPTIONS[task.name],
            config={"multi_gpu": False, **_OPTIONS[task.name]},
        )
        self._task = task
        self._source = ImageSource(task.catalog, allowed=allowed, site_mpp=task.site.settings.mpp)
        self._one_at_a_time, self._loading = threading.Lock(), threading.Lock()
        self._loaded: tuple[tuple[str, int, int], Any] | None = None
        self._masks = MaskCache(_MASKS_KEPT)
        self._running: _Report | None = None

    def info(self) -> dict[str, Any]:
        """What ``/info/`` shows of the model."""
        return {**super().info(), "pathology": True, "nuclick": False}

    def is_valid(self) -> bool:
        """Whether there is a model to infer with."""
        return self._task.current_model is not None

    def get_path(self, validate: bool = True) -> str | None:
        """The published model's file, None if there is none; without ``validate`` the place where it goes.

        MONAI Label downloads, replaces and renames that file. The checkpoint that the lab gave lies anywhere and is not
        the server's to change, so it is not named.
        """
        published = self._task.model_path
        return str(published) if published.is_file() or not validate else None

    def infer_slide(self, request: Mapping[str, Any]) -> WsiResult:
        """Infer on a region of a slide or picture, or on all of it.

        Args:
            request: ``image`` (an absolute path, or a name that the catalog knows), and what
                :func:`~tral_monai.label_app.wsi_request.parse_wsi_request` reads.

        Raises:
            ConfigError: a value of the request is wrong.
            UnknownItemError: there is no such image, or no model yet.
            SlideError: the image cannot be read.
            CheckpointError: the model's file cannot be used.
            BusyError: other inferences take longer than ten minutes.
        """
        wanted = parse_wsi_request(request, options=tuple(_OPTIONS[self._task.name]))
        output_of(request.get("output"))  # said before an hour of inference, not after it
        return self._infer(self._source.find(request.get("image")), wanted)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Infer on one picture: a label map for 3D Slicer, contours for CVAT.

        Args:
            request: ``image`` as above; ``result_extension`` of the label map; ``output: json`` for no label map.

        Returns:
            The label map's temporary file, None for JSON; and the JSON answer.

        Raises:
            ConfigError: a value of the request is wrong, or the image is too large for a label map.
            UnknownItemError: there is no such image, or no model yet.
            SlideError: the image cannot be read.
            OutputError: the label map cannot be written.
            BusyError: as above.
        """
        wanted = parse_wsi_request(request, options=tuple(_OPTIONS[self._task.name]))
        extension = extension_of(request.get("result_extension"))
        path = self._source.find(request.get("image"))
        result = self._infer(path, wanted, most_px=MAX_PX)
        if request.get("output") == "json":
            return None, json_answer(result)
        started = time.perf_counter()
        file = write_label_map(label_map(result.shapes, result.dimensions), extension, path)
        result = result.written_in(time.perf_counter() - started)
        return str(file), json_answer(result)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _infer(self, path: Path, wanted: WsiRequest, *, most_px: int | None = None) -> WsiResult:
        started = time.perf_counter()
        network = self._network()
        slide, warnings = self._source.open(path, mpp=wanted.mpp, model_mpp=_trained_mpp(network))
        with slide:
            dimensions = slide.dimensions
            if most_px is not None and max(dimensions) > most_px:
                raise ConfigError(
                    f"{slide.name} has {dimensions[0]} x {dimensions[1]} px, more than the {most_px} of a picture; ask "
                    f"/infer/wsi/{self._task.name} for a region of it or all of it"
                )
            regions = wanted.regions(dimensions)
            mapper = self._mapper(network, wanted.options, slide)
            tissue = self._task.name == "tissue"
            if tissue:
                _check_size(regions, MapGrid.of_slide(slide, stride_px=mapper.stride_px))
            with self._alone(slide.name) as report:
                mask = self._masks.mask(path, slide, mapper) if tissue or mapper.uses_mask(slide) else None
                ready = time.perf_counter()
                found = (
                    mapper.map_slide(slide, region_level0=region, mask=mask, on_progress=report) for region in regions
                )
                # A tissue map is as large as the slide, whatever part was looked at, so only one is kept.
                maps = [functools.reduce(joined_map, found)] if tissue else list(found)
        inferred = time.perf_counter()
        shapes = self._shapes(maps, network)
        if wanted.min_poly_area:
            shapes = shapes.keep(shapely.area(shapes.polygons) >= wanted.min_poly_area)
        done = time.perf_counter()
        stages = {
            "pre": ready - started,
            "infer": inferred - ready,
            "invert": 0.0,
            "post": done - inferred,
            "write": 0.0,
            "total": done - started,
        }
        return WsiResult(
            model=self._task.name,
            description=self.description,
            image=path.name,
            region=_around(regions, dimensions),
            dimensions=dimensions,
            shapes=shapes,
            warnings=(*warnings, *_problems(maps)),
            latencies={stage: round(seconds, 3) for stage, seconds in stages.items()},
        )

    def _network(self) -> Any:
        """The network of the current model, read again once its file has changed."""
        current = self._task.current_model
        if current is None:
            name = self._task.name
            raise UnknownItemError(
                f"there is no trained model '{name}' yet; label a round and train (POST /train/{name}), or start with "
                f"--conf {name}_checkpoint FILE"
            )
        with self._loading:
            state = current.stat()
            key = (str(current), state.st_mtime_ns, state.st_size)
            if self._loaded is None or self._loaded[0] != key:
                if self._task.name == "nuclei":
                    from tral_monai.inference.nuclei.load_detector import load_detector

                    network: Any = load_detector(current, map_location=self._task.device)
                else:
                    from tral_monai.inference.load_network import load_tissue_network

                    network = load_tissue_network(current, map_location=self._task.device)
                self._loaded = (key, network)
            return self._loaded[1]

    def _mapper(self, network: Any, options: Mapping[str, float], slide: Slide) -> Any:
        if self._task.name == "nuclei":
            from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper

            return NucleusMapper(network, device=self._task.device, **options)  # type: ignore[arg-type]
        from tral_monai.inference.tissue_mapper import TissueMapper

        # A field is what somebody cut out: no piece of tissue on it is too small to count.
        smallest = 0.0 if is_field(slide) else None
        return TissueMapper(network, device=self._task.device, min_object_um2=smallest, **options)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[_Report]:
        """Wait for other inferences to end, but not for ever, since a client that waits holds one of few threads."""
        if not self._one_at_a_time.acquire(timeout=_PATIENCE_S):
            running = self._running  # gone where it ended in this very moment
            what = "" if running is None else f" on {running}"
            raise BusyError(f"another inference{what} is going on; ask again once it has ended")
        try:
            self._running = _Report(name)
            yield self._running
        finally:
            self._running = None
            self._one_at_a_time.release()

    def _shapes(self, maps: list[Any], network: Any) -> Shapes:
        if self._task.name == "nuclei":
            return nucleus_shapes(maps)
        return tissue_shapes(maps, network.class_colors)


class _Report:
    """Tells the log, which clients can show, how far an inference is; as text, it is what others who wait are told."""

    def __init__(self, name: str) -> None:
        self._name, self._began, self._told = name, time.monotonic(), time.monotonic()
        self._at = (0, 0)

    def __call__(self, done: int, total: int) -> None:
        self._at = (done, total)
        if time.monotonic() - self._told >= _REPORT_SECONDS:
            self._told = time.monotonic()
            logger.info("%s: %d of %d tiles", self._name, done, total)

    def __str__(self) -> str:
        done, total = self._at
        return f"{self._name} ({done} of {total} tiles, for {time.monotonic() - self._began:.0f} s)"


def _trained_mpp(network: Any) -> float:
    """Micrometres per pixel of the finest image that a network takes."""
    from tral_monai.slides.magnification import magnification_to_mpp

    magnifications = getattr(network, "magnifications", None)
    if magnifications is not None:
        return magnification_to_mpp(max(magnifications))
    return float(network.contract.state_dict()["settings"]["fov_mpp"])


def _around(regions: list[Rectangle | None], dimensions: tuple[int, int]) -> Rectangle:
    """The smallest rectangle around all regions."""
    boxes = [region if region is not None else (0, 0, *dimensions) for region in regions]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    return left, top, max(box[0] + box[2] for box in boxes) - left, max(box[1] + box[3] for box in boxes) - top


def _check_size(regions: list[Rectangle | None], grid: MapGrid) -> None:
    row, column = (indices.ravel() for indices in np.indices(grid.shape))
    centres = grid.centres_level0(row, column)
    if not any(SlideWindow(region, grid.dimensions).holds(centres).any() for region in regions):
        side = math.ceil(grid.step_level0)
        raise ConfigError(
            f"the region is smaller than a tile and holds the centre of none; ask for {side} x {side} px or more"
        )


def _problems(maps: list[Any]) -> list[str]:
    """What the maps say of themselves, each sentence once."""
    sentences = [sentence for part in maps for sentence in getattr(part, "warnings", ())]
    failed = sum(len(part.failed_centres_level0) for part in maps)
    if failed:
        reason = next(message for part in maps for message in part.failures)
        sentences.append(f"{failed} tiles cannot be decoded and were left out ({reason})")
    return list(dict.fromkeys(sentences))
