# SPDX-License-Identifier: Apache-2.0
"""Tissue maps of many slides in one call: what a bundle's ``inference.yaml`` puts together, for use from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.areas import AreasWriter
from tral_monai.inference.class_map_png import ClassMapWriter
from tral_monai.inference.features_writer import FeaturesWriter
from tral_monai.inference.geojson_writer import GeoJSONWriter
from tral_monai.inference.load_network import load_tissue_network
from tral_monai.inference.overlay import OverlayWriter
from tral_monai.inference.probability_zarr import ProbabilityZarrWriter
from tral_monai.inference.progress_handler import ProgressHandler
from tral_monai.inference.provenance import ProvenanceWriter
from tral_monai.inference.slide_evaluator import FailOn, SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.slide_writer import SlideResult
from tral_monai.inference.tissue_mapper import TissueMapper
from tral_monai.slides.choose_backend import BackendName


class TissueInference:
    """Writes ``<name>.geojson``, ``<name>_classes.png``, ``<name>_overlay.png`` and ``<name>.json`` per slide, and one
    ``areas.csv``; on request features and probabilities.

    Args:
        slides: a path, a pattern such as ``slides/*.tif``, a folder, or a list of these.
        output_dir: folder of the results.
        checkpoint: a TriCNN checkpoint; the network is built from what it says.
        network: instead of ``checkpoint``, a network that gives (B, C) logits.
        classes: names of the network's outputs where it has no attribute ``classes``.
        colours: class colours that win over the built-in ones, name -> (r, g, b).
        mpp: micrometres per level-0 pixel of slides that record none.
        override_mpp: use ``mpp`` for every slide, whatever it records.
        backend: how slides are read.
        device: where the network runs; by default a GPU where there is one.
        resume: keep slides finished in an earlier run with the same content, weights and settings.
        fail_on: when :meth:`run` ends with an error: if ``all`` slides failed, if ``any`` did, or ``never``.
        save_probabilities: also write ``<name>_probabilities.ome.zarr``.
        save_features: also write ``<name>_features.h5``.
        progress: show a bar on a terminal.
        **mapper_settings: see :class:`~tral_monai.inference.tissue_mapper.TissueMapper`.

    Raises:
        ConfigError: a setting is out of range, no slide matches, or the output folder cannot be written to.
        CheckpointError: the checkpoint cannot be used.
    """

    def __init__(
        self,
        slides: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Mapping[str, Any]],
        output_dir: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        network: torch.nn.Module | None = None,
        classes: Sequence[str] | None = None,
        colours: Mapping[str, Sequence[int]] | None = None,
        mpp: float | None = None,
        override_mpp: bool = False,
        backend: BackendName = "auto",
        device: torch.device | str | None = None,
        resume: bool = True,
        fail_on: FailOn = "all",
        save_probabilities: bool = False,
        save_features: bool = False,
        progress: bool = True,
        **mapper_settings: Any,
    ) -> None:
        if (checkpoint is None) == (network is None):
            raise ConfigError("give either a checkpoint or a network, one of them")
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if network is None:
            assert checkpoint is not None
            network = load_tissue_network(checkpoint, map_location=device)
        dataset = SlideListDataset(slides)
        mapper_settings = {"keep_probabilities": save_probabilities, **mapper_settings}
        mapper = TissueMapper(network, classes, device=device, **mapper_settings)
        handlers: list[Any] = [
            ClassMapWriter(colours),
            GeoJSONWriter(colours=colours),
            OverlayWriter(colours=colours),
            *([ProbabilityZarrWriter(colours=colours)] if save_probabilities else []),
            *([FeaturesWriter()] if save_features else []),
            ProvenanceWriter(checkpoint=checkpoint),
            AreasWriter(),
        ]
        if progress:
            handlers.append(ProgressHandler())
        self.evaluator = SlideEvaluator(
            dataset,
            mapper,
            Path(output_dir),
            mpp=mpp,
            override_mpp=override_mpp,
            backend=backend,
            resume=resume,
            fail_on=fail_on,
            val_handlers=handlers,
        )

    def run(self) -> list[SlideResult]:
        """Map all slides.

        Returns:
            One result per slide, in the order of their paths.

        Raises:
            SlideError: slides failed, as ``fail_on`` says; the message names them.
        """
        self.evaluator.run()
        return self.evaluator.results
