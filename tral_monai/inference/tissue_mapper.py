# SPDX-License-Identifier: Apache-2.0
"""From a slide to its tissue map: mask, blocks of canvases read ahead, tiles through the model, rules, map."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.inferer import Inferer
from monai.networks.utils import eval_mode

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.agreement import Agreement
from tral_monai.inference.agreement_check import MIN_AGREEMENT, tile_agreement_check
from tral_monai.inference.choose_tile_model import choose_tile_model
from tral_monai.inference.early_exit.early_exit_model import EarlyExitModel
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.map_classes import MapClasses, decide
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.mapped_tiles import MappedTiles, OnTiles
from tral_monai.inference.plan import InferencePlan
from tral_monai.inference.require_features import require_features
from tral_monai.inference.slide_window import Rectangle, SlideWindow
from tral_monai.inference.tile_model import PerTileModel, TileOutputs
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.magnification import MAGNIFICATIONS, TILE_PX, level0_per_tile
from tral_monai.slides.slide import Slide
from tral_monai.slides.tissue import TissueMask, tissue_mask

Progress = Callable[[int, int], None]


class TissueMapper:
    """Maps slides with one network. Memory does not grow with the slide, except for a few bytes per tile.

    Threads decode blocks of the slide, one canvas per magnification; the canvases go to the device, where tiles are cut
    from them (:class:`~tral_monai.inference.plan.InferencePlan`): about 15 MB per block, and ``num_workers + read_ahead
    + 1`` blocks at most.

    The rules are those of the TRI-AL authors' inference code (see :func:`tral_monai.inference.map_classes.decide`);
    tiles without tissue become background without asking the model, and tiles that cannot be decoded are marked as
    not analysed.

    Args:
        network: gives (B, C) logits for (B, 9, 128, 128) raw RGB, uint8.
        classes: names of its outputs; by default ``network.classes``.
        inferer: MONAI inferer that runs the network on a batch of tiles; by default the network is called.
        engine: what runs the network, and in which precision; torch in fp32 by default. Any other is compared with
            that on sampled tiles of the first slides, by the classes shown, and refused where too many differ.
        early_exit: file of a gate made for this network (``exit_gate.pt``): tiles that the low magnifications decide
            safely enough are not looked at at 40x. Compared and refused like an engine; where ``min_agreement`` is
            None, as many may differ as the gate was calibrated for (1 - ``max_disagreement``).
        device: where the network runs; it is moved there.
        batch_size: tiles per forward pass.
        undefined_below: a tile whose largest probability is lower is undefined; 0 turns the rule off.
        damaged_at_least: probability that the class ``Damaged`` needs, where the model has it; 0 turns the rule off.
        background_class: name of the class of tiles without tissue.
        tissue_method: ``auto`` or ``paper``; see :func:`tral_monai.slides.tissue.tissue_mask`, also for the next two.
        min_object_um2: smaller pieces of tissue are left out; None takes the method's own limit.
        max_hole_um2: smaller holes in the tissue are filled; None takes the method's own limit.
        min_tissue_coverage: share of a tile that must be tissue for the model to look at it. At 0.5 border tiles count
            as tissue where most of them is, so that areas are neither too large nor too small on average.
        stride_px: distance of tiles in pixels at 40x, and so what one pixel of the map stands for.
        magnifications: of the tiles of one centre; by default the network's own, else the paper's 40x, 10x, 2.5x.
        tile_px: side of a tile; by default the network's own, else 128.
        keep_probabilities: keep all probabilities (2 bytes per tile and class), not only that of the class shown.
        num_workers: threads that decode; 0 reads in the calling thread, more than one pays with a GPU.
        read_ahead: decoded blocks that may wait for the network.

    Attributes:
        agreement: how far engine or gate agreed with the network in full precision; None where nothing was compared.

    Raises:
        ConfigError: a setting is out of range, no class names are known, or the gate was calibrated for other rules.
        CheckpointError: the gate is not of this network.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        classes: Sequence[str] | None = None,
        *,
        inferer: Inferer | None = None,
        engine: EngineSettings | None = None,
        early_exit: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        undefined_below: float = 0.6,
        damaged_at_least: float = 0.9,
        background_class: str = "Background",
        tissue_method: Literal["auto", "paper"] = "auto",
        min_object_um2: float | None = None,
        max_hole_um2: float | None = None,
        min_tissue_coverage: float = 0.5,
        stride_px: int = 128,
        magnifications: Sequence[float] | None = None,
        tile_px: int | None = None,
        keep_probabilities: bool = False,
        num_workers: int = 1,
        read_ahead: int = 2,
    ) -> None:
        names = classes if classes is not None else getattr(network, "classes", None)
        if names is None:
            raise ConfigError("the class names are unknown: the network has no attribute 'classes'; give classes=[...]")
        own = getattr(network, "classes", None)
        if own is not None and tuple(own) != tuple(names):
            raise ConfigError(
                f"classes must be the network's, but are {list(names)} instead of {list(own)}; leave classes out"
            )
        for name, value in (("batch_size", batch_size), ("stride_px", stride_px)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, but is {value}")
        for name, value in (("num_workers", num_workers), ("read_ahead", read_ahead)):
            if value < 0:
                raise ConfigError(f"{name} must be 0 or more, but is {value}")
        if tissue_method not in ("auto", "paper"):
            raise ConfigError(f"tissue_method must be 'auto' or 'paper', but is '{tissue_method}'")
        if not 0.0 <= min_tissue_coverage <= 1.0:
            raise ConfigError(f"min_tissue_coverage must lie between 0 and 1, but is {min_tissue_coverage}")
        self.network = network
        self.classes = MapClasses(names, background=background_class)
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.engine = engine if engine is not None else EngineSettings()
        self.undefined_below = undefined_below
        self.damaged_at_least = damaged_at_least
        decide(np.empty((0, len(self.classes.model_classes))), self.classes, **self._thresholds())
        self.model = choose_tile_model(
            network,
            engine=self.engine,
            inferer=inferer,
            device=device,
            batch_size=batch_size,
            early_exit=early_exit,
            damaged_output=self.classes.damaged_output,
            **self._thresholds(),
        )
        reference = PerTileModel(network, inferer=inferer, device=device, batch_size=batch_size)
        self.inferer = reference.inferer  # MONAI's engines ask for it
        self._check = None
        if self.model.settings() != reference.settings():
            self._check = tile_agreement_check(
                reference, self.model, self.engine, shown=self._values_shown, default_floor=self._default_floor()
            )
        self.tissue_method = tissue_method
        self.min_object_um2 = min_object_um2
        self.max_hole_um2 = max_hole_um2
        self.min_tissue_coverage = min_tissue_coverage
        self.stride_px = stride_px
        own_magnifications = getattr(network, "magnifications", MAGNIFICATIONS)
        self.magnifications = tuple(magnifications if magnifications is not None else own_magnifications)
        self.tile_px = int(tile_px if tile_px is not None else getattr(network, "tile_px", TILE_PX))
        self.keep_probabilities = keep_probabilities
        self.num_workers, self.read_ahead = num_workers, read_ahead
        if early_exit is not None:
            assert isinstance(self.model, EarlyExitModel)
            self.model.gate.check_rules(undefined_below=undefined_below, damaged_at_least=damaged_at_least)

    @property
    def agreement(self) -> Agreement | None:
        """How far the engine or the gate agreed with the network; None where nothing was compared."""
        return None if self._check is None else self._check.agreement

    def settings(self) -> dict[str, Any]:
        """Everything but the weights that decides the map: what a finished slide must agree with to be kept."""
        return {
            "classes": list(self.classes.model_classes),
            "background_class": self.classes.names[self.classes.background],
            **self._thresholds(),
            "tissue_method": self.tissue_method,
            "min_object_um2": self.min_object_um2,
            "max_hole_um2": self.max_hole_um2,
            "min_tissue_coverage": self.min_tissue_coverage,
            "stride_px": self.stride_px,
            "tile_px": self.tile_px,
            "magnifications": list(self.magnifications),
            **self.model.settings(),
        }

    def runtime(self) -> dict[str, Any]:
        """How the model is run; changes the map by rounding at most."""
        return {
            "device": str(self.device),
            **self.model.runtime(),
            "agreement": None if self._check is None else self._check.describe(),
        }

    def reset(self) -> None:
        """Begin anew with the network's weights as they are now; to be called after they have changed.

        What an engine made of the old weights is dropped, and the next slides are compared again.

        Raises:
            CheckpointError: the gate is not of these weights.
        """
        self.model.reset()
        if self._check is not None:
            self._check.reset()

    def check_features(self) -> None:
        """Check that pooled features can be had.

        Raises:
            ConfigError: see :func:`tral_monai.inference.require_features.require_features`.
        """
        require_features(self.model, self.inferer)

    def map_slide(
        self,
        slide: Slide,
        *,
        region_level0: Rectangle | None = None,
        mask: TissueMask | None = None,
        on_progress: Progress | None = None,
        on_tiles: OnTiles | None = None,
        want_features: bool = False,
    ) -> TissueMap:
        """Map one slide, or a part of it.

        Args:
            slide: an open slide.
            region_level0: (x, y, width, height) in level-0 px. Only cells with their centre inside are looked at; they
                get what they get in the map of the whole slide, up to rounding, and every other cell is background.
            mask: the slide's :meth:`tissue_mask`, where it is there already: it costs seconds on a large slide.
            on_progress: called with (tiles done, tiles in all), first with 0 done.
            on_tiles: called with the tiles of every block once they are mapped.
            want_features: let these tiles hold the network's pooled features too.

        Returns:
            The map, with the grid of the whole slide; all background where no tissue is found.

        Raises:
            AgreementError: the engine or the gate disagrees with the network on too many tiles.
            ConfigError: the region is empty, or lies outside of the slide; or features are wanted that cannot be had.
            SlideError: the slide's pixels are too coarse for a single tile.
            SlideReadError: the tissue mask, or every single tile, cannot be read.
            CheckpointError: the network's output does not have one finite logit per class.
        """
        if want_features:
            self.check_features()
        window = SlideWindow(region_level0, slide.dimensions)
        started = time.perf_counter()
        seconds = dict.fromkeys(("mask", "model", "wait_for_pixels", "total"), 0.0)
        grid = MapGrid.of_slide(slide, stride_px=self.stride_px)
        rows, columns = self._tissue_cells(slide, grid, window, mask)
        seconds["mask"] = time.perf_counter() - started

        class_index = np.full(grid.shape, self.classes.background, dtype=np.uint8)
        confidence = np.full(grid.shape, np.nan, dtype=np.float16)
        kept: npt.NDArray[np.float16] | None = None
        if self.keep_probabilities:
            kept = np.full((*grid.shape, len(self.classes.model_classes)), np.nan, dtype=np.float16)
        centres = grid.centres_level0(rows, columns)
        reader = CanvasReader(slide, magnifications=self.magnifications, tile_px=self.tile_px)
        report = on_progress or _no_report
        computed: dict[str, int] = {}
        done = 0

        def tiles_done(count: int) -> None:
            nonlocal done
            done += count
            report(done, len(centres))

        report(0, len(centres))
        with self._ready_network():
            if self._check is not None:
                self._check(self._title(), reader, centres)
            with InferencePlan(
                reader, centres, device=self.device, num_workers=self.num_workers, read_ahead=self.read_ahead
            ) as plan:
                for read, block in plan:
                    since = time.perf_counter()
                    outputs = self.model(block, want_features=want_features, done=tiles_done)
                    probabilities = self._probabilities(outputs, len(read))
                    values = decide(probabilities, self.classes, **self._thresholds())
                    where = rows[read.indices], columns[read.indices]
                    class_index[where] = values
                    confidence[where] = self._shown(probabilities, values)
                    if kept is not None:
                        kept[where] = probabilities
                    for name, count in outputs.computed.items():
                        computed[name] = computed.get(name, 0) + count
                    seconds["model"] += time.perf_counter() - since
                    if on_tiles is not None:
                        features = None if outputs.features is None else outputs.features.cpu().numpy()
                        on_tiles(MappedTiles(*where, centres[read.indices], probabilities, features))
        lost = plan.failed()
        seconds["wait_for_pixels"] = plan.wait_seconds
        class_index[rows[lost], columns[lost]] = self.classes.not_analysed
        seconds["total"] = time.perf_counter() - started
        return TissueMap(
            class_index=class_index,
            confidence=confidence,
            probabilities=kept,
            classes=self.classes,
            grid=grid,
            mpp_xy=slide.mpp_xy,
            failed_centres_level0=centres[lost],
            failures=tuple(plan.messages),
            seconds=seconds,
            computed=computed,
        )

    def _title(self) -> str:
        early = "early exit, " if "exit_gate" in self.model.settings() else ""
        return early + self.engine.title

    def _default_floor(self) -> float:
        """Share of sampled tiles that must keep their class, where the engine's settings leave it open."""
        if not isinstance(self.model, EarlyExitModel):
            return MIN_AGREEMENT
        return 1.0 - float(self.model.gate.calibration.get("max_disagreement", 1.0 - MIN_AGREEMENT))

    def _values_shown(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        return decide(probabilities.astype(np.float32), self.classes, **self._thresholds())

    def _thresholds(self) -> dict[str, float]:
        return {"undefined_below": self.undefined_below, "damaged_at_least": self.damaged_at_least}

    def tissue_mask(self, slide: Slide) -> TissueMask:
        """Where this mapper takes a slide for tissue; what cannot be decoded counts as tissue, so that it is looked at.

        Raises:
            SlideReadError: nothing of the slide can be decoded.
        """
        return tissue_mask(
            slide,
            method=self.tissue_method,
            min_object_um2=self.min_object_um2,
            max_hole_um2=self.max_hole_um2,
            tolerant=True,
        )

    def _tissue_cells(
        self, slide: Slide, grid: MapGrid, window: SlideWindow, mask: TissueMask | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and columns of the window's cells with enough tissue, in reading order."""
        tile_level0 = level0_per_tile(slide.mpp, tile_px=self.tile_px)
        mask = self.tissue_mask(slide) if mask is None else mask
        rows, columns = grid.shape
        enough = np.zeros(grid.shape, bool)
        step = max((1 << 16) // columns, 1)  # some rows at a time, as each cell takes hundreds of bytes meanwhile
        for start in range(0, rows, step):
            part = enough[start : start + step]
            centres = grid.centres_level0(*(i.ravel() for i in np.mgrid[start : start + len(part), :columns]))
            inside = window.holds(centres)
            part[inside.reshape(part.shape)] = mask.coverage(centres[inside], tile_level0) >= self.min_tissue_coverage
        row, column = np.nonzero(enough)
        return row, column

    @contextlib.contextmanager
    def _ready_network(self) -> Iterator[None]:
        with eval_mode(self.network.to(self.device)), torch.inference_mode():
            yield

    def _probabilities(self, outputs: TileOutputs, n: int) -> npt.NDArray[np.float32]:
        """(n, C) float32 of what the network gave for n tiles."""
        probabilities: npt.NDArray[np.float32] = (
            torch.softmax(self._checked(outputs.logits, n).float(), dim=1).cpu().numpy()
        )
        if not np.isfinite(probabilities).all():
            raise CheckpointError(
                "the network's logits are not finite; its weights are damaged or its training diverged"
            )
        return probabilities

    def _checked(self, logits: torch.Tensor, n: int) -> torch.Tensor:
        expected = (n, len(self.classes.model_classes))
        if tuple(logits.shape) != expected:
            raise CheckpointError(
                f"the network must give logits of shape {expected}, one per class in "
                f"{list(self.classes.model_classes)}, but gave {tuple(logits.shape)}; the checkpoint is of another "
                "network or class list"
            )
        return logits

    def _shown(self, probabilities: npt.NDArray[np.float32], values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probability of the class that the map shows; the largest one where that is undefined."""
        output_of = np.full(len(self.classes), -1)
        output_of[self.classes.of_model] = np.arange(len(self.classes.of_model))
        outputs = np.where(values == self.classes.undefined, probabilities.argmax(axis=1), output_of[values])
        shown: npt.NDArray[np.float32] = np.take_along_axis(probabilities, outputs[:, None], axis=1)[:, 0]
        return shown


def _no_report(done: int, total: int) -> None:
    """Progress that nobody asked for."""
