# SPDX-License-Identifier: Apache-2.0
"""Nuclei of many fields and slides in one call: what a bundle's ``inference.yaml`` puts together, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.counts import CountsWriter
from tral_monai.inference.nuclei.load_detector import load_auxiliary, load_detector
from tral_monai.inference.nuclei.nuclei_csv import NucleiCSVWriter
from tral_monai.inference.nuclei.nuclei_geojson import NucleiGeoJSONWriter
from tral_monai.inference.nuclei.nuclei_overlay import NucleiOverlayWriter
from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper
from tral_monai.inference.progress_handler import ProgressHandler
from tral_monai.inference.provenance import ProvenanceWriter
from tral_monai.inference.slide_evaluator import FailOn, SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.slide_writer import SlideResult
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.slides.choose_backend import BackendName


class NucleusInference:
    """Writes ``<name>.geojson``, ``<name>.csv``, ``<name>_overlay.png`` and ``<name>.json`` per image, and one
    ``counts.csv``.

    Args:
        images: fields and slides: a path, a pattern such as ``fields/*.png``, a folder, or a list of these.
        output_dir: folder of the results.
        checkpoint: checkpoint of a target detector, such as ``model.pt`` of a run.
        network: instead of ``checkpoint``, a detector.
        auxiliary_checkpoint: checkpoint of the auxiliary detector, for distances to the prototypes; ``auto`` takes
            ``auxiliary.pt`` beside ``checkpoint`` where there is one.
        auxiliary_network: instead of ``auxiliary_checkpoint``, a detector of the role ``prototype``.
        colours: class colours that win over the detector's own, name -> (r, g, b).
        mpp: micrometres per level-0 pixel of images that record none; plain images never do.
        override_mpp: use ``mpp`` for every image, whatever it records.
        backend: how images are read.
        device: where the networks run; by default a GPU where there is one.
        packed: write ``<name>.geojson.gz``.
        resume: keep images finished in an earlier run with the same content, weights and settings.
        fail_on: when :meth:`run` ends with an error: if ``all`` images failed, if ``any`` did, or ``never``.
        progress: show a bar on a terminal.
        **mapper_settings: see :class:`~tral_monai.inference.nuclei.nucleus_mapper.NucleusMapper`.

    Raises:
        ConfigError: a setting is out of range, no image matches, or the output folder cannot be written to.
        CheckpointError: a checkpoint cannot be used.
    """

    def __init__(
        self,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Mapping[str, Any]],
        output_dir: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        network: torch.nn.Module | None = None,
        auxiliary_checkpoint: str | os.PathLike[str] | None = None,
        auxiliary_network: OpenSetRCNN | None = None,
        colours: Mapping[str, Sequence[int]] | None = None,
        mpp: float | None = None,
        override_mpp: bool = False,
        backend: BackendName = "auto",
        device: torch.device | str | None = None,
        packed: bool = False,
        resume: bool = True,
        fail_on: FailOn = "all",
        progress: bool = True,
        **mapper_settings: Any,
    ) -> None:
        if (checkpoint is None) == (network is None):
            raise ConfigError("give either a checkpoint or a network, one of them")
        if auxiliary_checkpoint is not None and auxiliary_network is not None:
            raise ConfigError("give either an auxiliary_checkpoint or an auxiliary_network, not both")
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dataset = SlideListDataset(images, fields=True)
        if network is None:
            assert checkpoint is not None
            network = load_detector(checkpoint, map_location=device)
        if auxiliary_network is None:
            auxiliary_network = load_auxiliary(auxiliary_checkpoint, beside=checkpoint, map_location=device)
        mapper = NucleusMapper(network, auxiliary_network, device=device, **mapper_settings)
        handlers: list[Any] = [
            NucleiGeoJSONWriter(colours=colours, packed=packed),
            NucleiCSVWriter(),
            NucleiOverlayWriter(colours=colours),
            ProvenanceWriter(checkpoint=checkpoint),
            CountsWriter(),
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
        """Find the nuclei of all images.

        Returns:
            One result per image, in the order of their paths.

        Raises:
            SlideError: images failed, as ``fail_on`` says; the message names them.
        """
        self.evaluator.run()
        return self.evaluator.results
