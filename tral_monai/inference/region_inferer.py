# SPDX-License-Identifier: Apache-2.0
"""A mapper as a MONAI inferer, and as a MONAI detector: a region of a slide in, what the network finds there out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers.inferer import Inferer

from tral_monai.errors import ConfigError, MissingMppError
from tral_monai.inference.mask_cache import MaskCache
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.palette import Rgb
from tral_monai.inference.region_request import region_of
from tral_monai.inference.slide_window import Rectangle
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.slides.choose_backend import BackendName
from tral_monai.slides.slide import Slide, open_slide

# One for the process: MONAI Label builds a bundle's inferer anew for every tile that it asks about.
_MASKS = MaskCache()


@dataclasses.dataclass(frozen=True)
class RegionPrediction:
    """What was found in a region.

    Attributes:
        prediction: the mapper's result.
        region_level0: (x, y, width, height) in level-0 px, None for the whole slide.
        colours: the network's own class colours.
    """

    prediction: TissueMap | NucleusMap
    region_level0: Rectangle | None
    colours: dict[str, Rgb]


class RegionInferer(Inferer):
    """Runs a mapper on the region that a :class:`~tral_monai.inference.region_request.RegionRequestd` asked for.

    Args:
        mapper: makes the mapper of a network; called as ``mapper(network, device=device)``. In a configuration, a
            ``_target_`` with ``_mode_: callable``.
        mpp: micrometres per level-0 pixel of slides that record none.
        override_mpp: use ``mpp`` for every slide, whatever it records.
        backend: how slides are read; see :func:`tral_monai.slides.slide.open_slide`.

    Raises:
        ConfigError: ``override_mpp`` without ``mpp``.
    """

    def __init__(
        self,
        mapper: Callable[..., Any],
        *,
        mpp: float | None = None,
        override_mpp: bool = False,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        if override_mpp and mpp is None:
            raise ConfigError("override_mpp needs the value to use; give mpp, such as 0.25 for a 40x scan")
        self.mapper, self.mpp, self.override_mpp, self.backend = mapper, mpp, override_mpp, backend

    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any
    ) -> list[RegionPrediction]:
        """Look at one region.

        Args:
            inputs: what ``RegionRequestd`` made, with or without a batch dimension of 1, on the network's device.
            network: the bundle's network.
            args: as MONAI passes them; not used.
            kwargs: as MONAI passes them; not used.

        Returns:
            A list of the one prediction, as a batch of one.

        Raises:
            ConfigError: the input is no region, or the region lies outside of the slide.
            SlideError: the slide cannot be opened or read, or its resolution is not known.
            CheckpointError: the network does not fit.
        """
        path, region = region_of(inputs)
        mapper = self.mapper(network, device=inputs.device)
        with self._open(path) as slide:
            needs_mask = getattr(mapper, "uses_mask", None)  # tissue maps always do
            mask = _MASKS.mask(path, slide, mapper) if needs_mask is None or needs_mask(slide) else None
            prediction = mapper.map_slide(slide, region_level0=region, mask=mask)
        return [RegionPrediction(prediction, region, dict(getattr(network, "class_colors", None) or {}))]

    def _open(self, path: str) -> Slide:
        if self.override_mpp:
            return open_slide(path, self.backend, self.mpp)
        try:
            return open_slide(path, self.backend)
        except MissingMppError:
            if self.mpp is None:
                raise
        return open_slide(path, self.backend, self.mpp)


class RegionDetector:
    """The same in the form in which MONAI Label runs bundles whose name says "detection".

    Args:
        inferer: looks at the region.

    Attributes:
        network: MONAI Label sets it before every call.
    """

    def __init__(self, inferer: RegionInferer) -> None:
        self.inferer = inferer
        self.network: torch.nn.Module | None = None

    def __call__(self, inputs: torch.Tensor, use_inferer: bool = True) -> list[RegionPrediction]:
        """Look at one region; see :class:`RegionInferer`.

        Args:
            inputs: what ``RegionRequestd`` made.
            use_inferer: as MONAI's detectors have it; the inferer is always used.

        Raises:
            ConfigError: no network was set.
        """
        if self.network is None:
            raise ConfigError("a RegionDetector needs a network; set its attribute 'network' first")
        return self.inferer(inputs, self.network)
