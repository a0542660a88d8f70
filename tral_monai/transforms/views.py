# SPDX-License-Identifier: Apache-2.0
"""Altered views of an image, with the way back for the boxes found in them: consistency (CALD) and noise (LAAL)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.data.nuclei.dataset import item_generator
from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.transforms.boxes import inverse_element, turn_boxes, turn_image
from tral_monai.transforms.stain_jitter import RandStainJitter

_Float = TypeVar("_Float", np.float32, np.float64)

NOISE_LEVELS = (8.0, 16.0, 24.0, 32.0, 40.0, 48.0)
"""Standard deviations of LAAL's Gaussian noise, in grey levels of 0 to 255 (Kao et al. 2018)."""


@dataclass(frozen=True)
class View:
    """One altered view: the stains jittered, then turned or mirrored, then resized. The same for every image.

    Args:
        name: What it is called.
        element: Symmetry of the square, 0 to 7, as :func:`tral_monai.transforms.boxes.turn_image` has it.
        scale: Side of the view over side of the image, after turning.
        stain: Jitter of the stains, None for none.
        seed: Of the jitter's draw. All images get the same jitter, so a view depends on the image alone.

    Raises:
        ConfigError: An element or scale out of range.
    """

    name: str
    element: int = 0
    scale: float = 1.0
    stain: RandStainJitter | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.element not in range(8):
            raise ConfigError(f"view '{self.name}': element must be 0 to 7, but is {self.element!r}")
        if not 0.1 <= self.scale <= 10:
            raise ConfigError(f"view '{self.name}': scale must be from 0.1 to 10, but is {self.scale!r}")

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """The view of an image.

        Args:
            image: uint8 (3, h, w), the reference.

        Returns:
            uint8 (3, h', w').
        """
        if self.stain is not None:
            image = self.stain(image[None], torch.Generator().manual_seed(self.seed))[0]
        image = turn_image(image, self.element)
        if self.scale == 1.0:
            return image
        size = [_scaled(side, self.scale) for side in image.shape[-2:]]
        resized = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
        return resized.round().clamp(0, 255).to(torch.uint8)

    def boxes_to_reference(self, boxes_px: npt.NDArray[_Float], size_px: tuple[int, int]) -> npt.NDArray[_Float]:
        """Boxes found in the view, in pixels of the reference.

        Args:
            boxes_px: (k, 4) in pixels of the view.
            size_px: Width and height of the reference.

        Returns:
            (k, 4), same dtype.
        """
        turned = size_px[::-1] if self.element & 4 else size_px
        boxes = torch.from_numpy(np.asarray(boxes_px, dtype=np.float64).reshape(-1, 4))
        if self.scale != 1.0:
            across, down = (side / _scaled(side, self.scale) for side in turned)
            boxes = boxes * torch.tensor([across, down, across, down], dtype=torch.float64)
        back = turn_boxes(boxes, inverse_element(self.element), (turned[0], turned[1]))
        return back.numpy().astype(boxes_px.dtype)

    def detections_to_reference(self, detections: Detections, sizes_px: npt.NDArray[np.int64]) -> Detections:
        """The same for all boxes and proposals found in the views of many images.

        Args:
            detections: What a detector found in the views, n images.
            sizes_px: (n, 2) width and height of each reference, as ``fov_table.fov_size_px`` gives them.

        Raises:
            ConfigError: There is not one size per image.
        """
        sizes = np.asarray(sizes_px).reshape(-1, 2)
        if len(sizes) != len(detections):
            raise ConfigError(f"view '{self.name}': {len(detections)} images have detections, but {len(sizes)} a size")
        boxes = detections.boxes_px.copy()
        proposals = None if detections.proposals_px is None else detections.proposals_px.copy()
        of_box = detections.image_of_box
        for width, height in np.unique(sizes, axis=0).tolist():
            rows = ((sizes == (width, height)).all(1))[of_box]
            boxes[rows] = self.boxes_to_reference(boxes[rows], (width, height))
            if proposals is not None:
                proposals[rows] = self.boxes_to_reference(proposals[rows], (width, height))
        return replace(detections, boxes_px=boxes, proposals_px=proposals)


def cald_views(*, resize: float = 0.8, stain_scale: float = 0.2, stain_shift: float = 0.05) -> tuple[View, ...]:
    """The four views that CALD compares with the image itself, for H&E.

    Yu et al. 2022 use flip, cut-out, resizing by 0.8 and a turn by 5 degrees. Of tissue, a turn by 90 degrees is exact
    and a jitter of the stains likelier than a hole, so these take the places of the last two.

    Args:
        resize: Scale of the resized view.
        stain_scale: Range of the jitter's factor, see :class:`RandStainJitter`.
        stain_shift: Range of its offset.
    """
    return (
        View("flip", element=1),
        View("rot90", element=6),
        View("resize", scale=resize),
        View("stain", stain=RandStainJitter(stain_scale, stain_shift, probability=1.0)),
    )


def add_noise(image: torch.Tensor, sd: float, *, fov_id: int, seed: int = 0) -> torch.Tensor:
    """An image with Gaussian noise, the same for the same FOV, level and seed.

    Args:
        image: uint8 (3, h, w).
        sd: Standard deviation in grey levels, such as one of :data:`NOISE_LEVELS`.
        fov_id: Id of the field of view.
        seed: Of the run.

    Returns:
        uint8 (3, h, w).

    Raises:
        ConfigError: ``sd`` is negative.
    """
    if sd < 0:
        raise ConfigError(f"sd must be 0 or more grey levels, but is {sd!r}")
    generator = item_generator(seed, round(sd * 1000), fov_id)
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return (image.float() + sd * noise).round().clamp(0, 255).to(torch.uint8)


def _scaled(side: int, scale: float) -> int:
    return max(round(side * scale), 1)
