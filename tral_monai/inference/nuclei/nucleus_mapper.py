# SPDX-License-Identifier: Apache-2.0
"""From a field or a slide to its nuclei: canvases read ahead, tiles through the detector, boxes joined across seams."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from monai.networks.utils import eval_mode

from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.errors import ConfigError
from tral_monai.inference.agreement import Agreement
from tral_monai.inference.agreement_check import AgreementCheck
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.nuclei.detection_agreement import detection_agreement
from tral_monai.inference.nuclei.detection_inferer import DetectionInferer, TileInferer
from tral_monai.inference.nuclei.detector_facts import detector_facts
from tral_monai.inference.nuclei.engine_detector import engine_detector
from tral_monai.inference.nuclei.found_nuclei import FoundNuclei
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.nuclei.placed_nuclei import NucleusPlacer
from tral_monai.inference.nuclei.prototype_distances import PrototypeDistances
from tral_monai.inference.nuclei.seams import is_cut, join
from tral_monai.inference.nuclei.tile_choice import choose_tiles
from tral_monai.inference.nuclei.tile_plan import TilePlan
from tral_monai.inference.plan import InferencePlan
from tral_monai.inference.slide_window import Rectangle, SlideWindow
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.magnification import mpp_to_magnification, resolve
from tral_monai.slides.slide import Slide
from tral_monai.slides.tissue import TissueMask, tissue_mask

Progress = Callable[[int, int], None]
UseMask = Literal["auto", "always", "never"]

_log = logging.getLogger(__name__)

_MASK_FROM_UM = 1000.0  # a smaller image is a field that somebody chose, and is looked at as a whole
_COARSER = 1.25  # from here on enlarging the image is worth a warning
_UM2_PER_MM2 = 1e6
_LEAST_NUCLEI = 50  # to compare an engine on; tiles without nuclei say nothing


class NucleusMapper:
    """Finds the nuclei of fields and slides with one detector. Only the results grow with the slide.

    The image is cut into tiles at the detector's own micrometres per pixel. Each tile answers for its core, and what
    two tiles see of one nucleus is joined (see :mod:`tral_monai.inference.nuclei.seams`). A nucleus comes once, with
    its best class, also where the detector itself lets two classes overlap.

    Threads decode blocks of the slide, the canvases go to the device and tiles are cut from them there
    (:class:`~tral_monai.inference.plan.InferencePlan`): about 15 MB per block, and ``num_workers + read_ahead + 1``
    blocks at most.

    Args:
        network: an ``OpenSetRCNN`` of the role ``target``; its contract gives classes, colours, ``fov_mpp``.
        auxiliary: a detector of the role ``prototype``, for the distances to the known and the unknown prototype.
        inferer: runs the network on a list of tiles; a ``DetectionInferer`` by default.
        engine: what runs the detector's backbone, and in which precision; torch in fp32 by default. Any other is
            compared with that on sampled tiles of the first images, until ``agreement_tiles`` tiles and 50 nuclei were
            seen or four times as many tiles, and refused where more nuclei differ than ``min_agreement`` permits.
        device: where the networks run; they are moved there.
        batch_size: tiles per forward pass.
        tile_px: side of a tile at ``fov_mpp``; the detector's own ``fov_px`` by default. Larger tiles waste less on
            overlap, but a detector gives up to so many boxes per tile only.
        overlap_px: least overlap of neighbouring tiles at ``fov_mpp``; it must be at least as wide as the largest
            nucleus, which could otherwise be cut in every tile.
        min_score: nuclei with a lower score are left out.
        known_only: leave out nuclei nearer to the unknown than to the known prototype; needs ``auxiliary``.
        nms_iou: from which IoU on two boxes are one nucleus, whatever their classes.
        use_mask: look at tissue only: ``auto`` (where the image is at least 1 mm long), ``always`` or ``never``.
        tissue_method: ``auto`` or ``paper``; see :func:`tral_monai.slides.tissue.tissue_mask`.
        min_tissue_coverage: share of a tile's core that must be tissue for the detector to look at it.
        num_workers: threads that decode; 0 reads in the calling thread, more than one pays with a GPU.
        read_ahead: decoded blocks that may wait for the detector.

    Raises:
        ConfigError: a setting is out of range, or the networks do not fit the task or each other.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        auxiliary: OpenSetRCNN | None = None,
        *,
        inferer: TileInferer | None = None,
        engine: EngineSettings | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 8,
        tile_px: int | None = None,
        overlap_px: int = 64,
        min_score: float = 0.5,
        known_only: bool = False,
        nms_iou: float = 0.5,
        use_mask: UseMask = "auto",
        tissue_method: Literal["auto", "paper"] = "auto",
        min_tissue_coverage: float = 0.05,
        num_workers: int = 1,
        read_ahead: int = 2,
    ) -> None:
        facts = detector_facts(network)
        role = getattr(network, "role", "target")
        if role != "target":
            raise ConfigError(
                f"nuclei are found by a detector of the role 'target', but this one has {role!r}; give the file "
                "model.pt of a run"
            )
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, but is {batch_size}")
        for name, value in (("num_workers", num_workers), ("read_ahead", read_ahead)):
            if value < 0:
                raise ConfigError(f"{name} must be 0 or more, but is {value}")
        for name, share in (
            ("min_score", min_score),
            ("nms_iou", nms_iou),
            ("min_tissue_coverage", min_tissue_coverage),
        ):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"{name} must lie between 0 and 1, but is {share}")
        if use_mask not in ("auto", "always", "never"):
            raise ConfigError(f"use_mask must be 'auto', 'always' or 'never', but is '{use_mask}'")
        if tissue_method not in ("auto", "paper"):
            raise ConfigError(f"tissue_method must be 'auto' or 'paper', but is '{tissue_method}'")
        if known_only and auxiliary is None:
            raise ConfigError(
                "known_only needs the auxiliary detector's prototypes; give its checkpoint (auxiliary_checkpoint), or "
                "set known_only to false"
            )
        if known_only and auxiliary is not None and not _has_both_prototypes(auxiliary):
            raise ConfigError(
                "known_only needs a prototype of unknown nuclei, but the auxiliary detector was trained on fields "
                "without any; take that of a later round, or set known_only to false"
            )
        self.network = network
        self.classes, self.colours, self.fov_mpp = facts.classes, facts.colours, facts.fov_mpp
        self.max_detections = facts.max_detections
        self.tile_px = int(tile_px if tile_px is not None else facts.fov_px)
        self.overlap_px = overlap_px
        TilePlan((1, 1), self.tile_px, overlap_px)  # checks both
        self.distances = None if auxiliary is None else PrototypeDistances(auxiliary)
        if self.distances is not None and abs(self.distances.fov_mpp / self.fov_mpp - 1) > 0.01:
            raise ConfigError(
                f"both detectors must see the same size of pixels, but the target detector was trained at "
                f"{self.fov_mpp} and the auxiliary one at {self.distances.fov_mpp} um per pixel; take both from one run"
            )
        self.inferer: TileInferer = inferer if inferer is not None else DetectionInferer()
        self.device = torch.device(device)
        self.engine = engine if engine is not None else EngineSettings()
        self._fast: torch.nn.Module | None = None  # made at the first image, when the network is on its device
        self._check: AgreementCheck[Detections] | None = None
        self.batch_size = batch_size
        self.min_score, self.known_only, self.nms_iou = min_score, known_only, nms_iou
        self.use_mask, self.tissue_method, self.min_tissue_coverage = use_mask, tissue_method, min_tissue_coverage
        self.num_workers, self.read_ahead = num_workers, read_ahead

    @property
    def agreement(self) -> Agreement | None:
        """How far the engine agreed with the detector in full precision; None where nothing was compared."""
        return None if self._check is None else self._check.agreement

    def settings(self) -> dict[str, Any]:
        """Everything but the detector's weights that decides the nuclei: what a finished image must agree with."""
        return {
            "classes": list(self.classes),
            "colours": {name: list(colour) for name, colour in self.colours.items()},
            "fov_mpp": self.fov_mpp,
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
            "min_score": self.min_score,
            "known_only": self.known_only,
            "nms_iou": self.nms_iou,
            "use_mask": self.use_mask,
            "tissue_method": self.tissue_method,
            "min_tissue_coverage": self.min_tissue_coverage,
            "auxiliary": None if self.distances is None else self.distances.settings(),
            **self.engine.settings(),
        }

    def runtime(self) -> dict[str, Any]:
        """How the detector is run; changes the nuclei by rounding at most."""
        return {
            "device": str(self.device),
            **self.engine.describe(),
            "batch_size": self.batch_size,
            "inferer": type(self.inferer).__name__,
            "agreement": None if self._check is None else self._check.describe(),
        }

    def reset(self) -> None:
        """Begin anew with the detector's weights as they are now; to be called after they have changed.

        What the engine made of the old weights is dropped, and the next images are compared again.
        """
        self._fast = self._check = None

    def map_slide(
        self,
        slide: Slide,
        *,
        region_level0: Rectangle | None = None,
        mask: TissueMask | None = None,
        on_progress: Progress | None = None,
    ) -> NucleusMap:
        """Find the nuclei of one image, or of a part of it.

        Args:
            slide: an open slide or field.
            region_level0: (x, y, width, height) in level-0 px. The nuclei with their centre inside are those that are
                found on the whole image, up to rounding: the tiles are the same, and those around are looked at too.
            mask: the image's :meth:`tissue_mask`, where it is there already: it costs seconds on a large slide.
            on_progress: called with (tiles done, tiles in all), first with 0 done.

        Returns:
            The nuclei; none where no tissue is found.

        Raises:
            AgreementError: more nuclei differ from the detector's in full precision than ``min_agreement`` permits.
            ConfigError: the region is empty, or lies outside of the image.
            SlideReadError: the tissue mask, or every single tile, cannot be read.
            CheckpointError: the detector's output is not finite or of other classes.
        """
        started = time.perf_counter()
        seconds = dict.fromkeys(("mask", "model", "wait_for_pixels", "join", "total"), 0.0)
        asked = self.fov_mpp / slide.mpp
        downsample = resolve(slide.level_downsamples, asked).downsample
        plan = TilePlan(slide.source(asked).size, self.tile_px, self.overlap_px)
        window = SlideWindow(region_level0, slide.dimensions)
        masked = self.uses_mask(slide)
        mask = (mask or self.tissue_mask(slide)) if masked else None
        chosen = choose_tiles(plan, window, downsample, mask=mask, min_coverage=self.min_tissue_coverage)
        tiles = chosen.tiles
        seconds["mask"] = time.perf_counter() - started

        # The reader takes whole level-0 pixels; where a tile then really starts is computed as the reader does it.
        half = self.tile_px // 2
        centres = np.floor((plan.starts_px(tiles) + half) * downsample + 0.5).astype(np.int64)
        starts = np.floor(centres / downsample + 0.5).astype(np.int64) - half
        reader = CanvasReader(slide, magnifications=(mpp_to_magnification(self.fov_mpp),), tile_px=self.tile_px)
        report = on_progress or _no_report
        found = [FoundNuclei.nothing()]
        done = full = 0
        report(done, len(tiles))
        placer = NucleusPlacer(
            plan,
            self.classes,
            min_score=self.min_score,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            distances=self.distances,
        )
        with self._ready() as network:
            if self._check is not None:
                self._check(self.engine.title, reader, centres)
            with InferencePlan(
                reader, centres, device=self.device, num_workers=self.num_workers, read_ahead=self.read_ahead
            ) as blocks:
                for read, block in blocks:
                    since = time.perf_counter()
                    for start in range(0, len(read), self.batch_size):
                        batch = read.indices[start : start + self.batch_size]
                        images = self._images(block, start, plan.tile_size_px)
                        detections = self.inferer(images, network)
                        nuclei, full_tiles = placer(tiles[batch], starts[batch], images, detections)
                        found.append(nuclei)
                        full += full_tiles
                        done += len(batch)
                        report(done, len(tiles))
                    seconds["model"] += time.perf_counter() - since
        failed = blocks.failed()
        seconds["wait_for_pixels"] = blocks.wait_seconds
        joining_since = time.perf_counter()
        nuclei = FoundNuclei.concatenate(found).of_tile_order()
        nuclei = nuclei.keep(join(plan, nuclei.boxes_px, nuclei.score, nuclei.tiles, iou=self.nms_iou))
        corners = nuclei.boxes_px.astype(np.float64) * downsample
        nuclei = nuclei.keep(window.holds((corners[:, :2] + corners[:, 2:]) / 2))
        cut = int(np.count_nonzero(is_cut(plan, nuclei.boxes_px, nuclei.tiles)))
        if self.known_only:
            nuclei = nuclei.keep(~(nuclei.distances[:, 0] > nuclei.distances[:, 1]))  # NaN says nothing
        boxes = nuclei.boxes_px.astype(np.float64) * downsample
        boxes = np.clip(boxes, 0, np.tile(np.array(slide.dimensions, dtype=np.float64), 2)).astype(np.float32)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        nuclei, boxes = nuclei.keep(inside), boxes[inside]
        seconds["join"] = time.perf_counter() - joining_since
        seconds["total"] = time.perf_counter() - started
        return NucleusMap(
            boxes_level0=boxes,
            labels=nuclei.labels,
            score=nuclei.score,
            uncertainty=nuclei.uncertainty,
            distance_known=np.ascontiguousarray(nuclei.distances[:, 0]),
            distance_unknown=np.ascontiguousarray(nuclei.distances[:, 1]),
            classes=self.classes,
            colours=self.colours,
            dimensions=slide.dimensions,
            mpp_xy=slide.mpp_xy,
            analysed_mm2=float(np.delete(chosen.areas_level0, failed).sum()) * slide.mpp**2 / _UM2_PER_MM2,
            not_analysed_mm2=float(chosen.areas_level0[failed].sum()) * slide.mpp**2 / _UM2_PER_MM2,
            masked=masked,
            tiles=len(tiles),
            failed_centres_level0=centres[failed],
            not_analysed_level0=np.clip(plan.cores_px(tiles[failed]) * downsample, 0, np.tile(slide.dimensions, 2)),
            failures=tuple(blocks.messages),
            cut_by_seams=cut,
            warnings=self._warnings(slide, cut, full),
            seconds=seconds,
        )

    def uses_mask(self, slide: Slide) -> bool:
        """Whether only the tissue of an image is looked at."""
        if self.use_mask == "auto":
            return max(slide.dimensions) * slide.mpp >= _MASK_FROM_UM
        return self.use_mask == "always"

    def tissue_mask(self, slide: Slide) -> TissueMask:
        """Where this mapper takes an image for tissue; what cannot be decoded counts as tissue, to be looked at.

        Raises:
            SlideReadError: nothing of the image can be decoded.
        """
        return tissue_mask(slide, method=self.tissue_method, tolerant=True)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[torch.nn.Module]:
        networks = [self.network.to(self.device)]
        if self.distances is not None:
            networks.append(self.distances.network.to(self.device))
        with eval_mode(*networks), torch.inference_mode():
            if self.engine.is_reference:
                yield self.network
                return
            if self._fast is None:
                detector: Any = self.network
                self._fast = engine_detector(detector, self.engine, device=self.device, batch_size=self.batch_size)
                self._check = self._agreement_check(self._fast)
            yield self._fast

    def _agreement_check(self, fast: torch.nn.Module) -> AgreementCheck[Detections]:
        def answers(network: torch.nn.Module) -> Callable[[DeviceBlock], Detections]:
            def of_block(block: DeviceBlock) -> Detections:
                size = (self.tile_px, self.tile_px)
                starts = range(0, len(block), self.batch_size)
                return concatenate([self.inferer(self._images(block, start, size), network) for start in starts])

            return of_block

        return AgreementCheck(
            answers(self.network),
            answers(fast),
            lambda expected, found: detection_agreement(
                concatenate(expected), concatenate(found), min_score=self.min_score
            ),
            settings=self.engine,
            device=self.device,
            least_compared=_LEAST_NUCLEI,
        )

    def _images(self, block: DeviceBlock, start: int, size_px: tuple[int, int]) -> list[torch.Tensor]:
        """A batch of tiles, (3, h, w) uint8 each; what an image smaller than a tile lacks is left out."""
        width, height = size_px
        return [image[:, :height, :width] for image in block.tiles(slice(start, start + self.batch_size))]

    def _warnings(self, slide: Slide, cut: int, full: int) -> tuple[str, ...]:
        warnings = []
        if slide.mpp > _COARSER * self.fov_mpp:
            warnings.append(
                f"the image has {slide.mpp:.4g} um per pixel and was enlarged to the {self.fov_mpp:.4g} that the "
                "detector was trained at; expect it to find less"
            )
        if cut:
            warnings.append(
                f"{cut} nuclei were cut by the edge of their tile; give overlap_px at least the size of the largest "
                f"nucleus (it is {self.overlap_px})"
            )
        if full:
            warnings.append(
                f"{full} tiles held as many nuclei as the detector gives per tile ({self.max_detections}), so that "
                f"some may be missing; give a smaller tile_px (it is {self.tile_px})"
            )
        for warning in warnings:
            _log.warning("%s: %s", slide.name, warning)
        return tuple(warnings)


def _no_report(done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _has_both_prototypes(auxiliary: OpenSetRCNN) -> bool:
    return auxiliary.prototypes is not None and bool(auxiliary.prototypes.ready.all())
