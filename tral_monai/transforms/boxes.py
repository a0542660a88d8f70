# SPDX-License-Identifier: Apache-2.0
"""Transforms of one image together with its boxes, for ``NucleusDataset``: (image, boxes, generator) -> the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import BatchTransform
from tral_monai.transforms.geometry import ALL


def turn_image(image: torch.Tensor, element: int) -> torch.Tensor:
    """One symmetry of the square, applied to an image of any shape.

    Args:
        image: (..., h, w).
        element: 0 to 7; bits as in ``geometry.apply_dihedral``: 4 transpose, then 2 mirror top to bottom, then 1 mirror
            left to right.

    Returns:
        The image; (..., w, h) where the element transposes.
    """
    if element & 4:
        image = image.transpose(-1, -2)
    flipped = [dim for bit, dim in ((2, -2), (1, -1)) if element & bit]
    return (image.flip(flipped) if flipped else image).contiguous()


def turn_boxes(boxes: torch.Tensor, element: int, size_px: tuple[int, int]) -> torch.Tensor:
    """The boxes of an image that :func:`turn_image` turned.

    Args:
        boxes: (k, 4) xmin, ymin, xmax, ymax in pixels of the image before, the maximum exclusive.
        element: 0 to 7.
        size_px: Width and height of the image before.

    Returns:
        (k, 4) in pixels of the turned image.
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    width, height = size_px
    if element & 4:
        x0, y0, x1, y1, width, height = y0, x0, y1, x1, height, width
    if element & 2:
        y0, y1 = height - y1, height - y0
    if element & 1:
        x0, x1 = width - x1, width - x0
    return torch.stack([x0, y0, x1, y1], dim=1)


def inverse_element(element: int) -> int:
    """The element that undoes another: itself, but for the two turns by 90 degrees, which undo each other."""
    if not element & 4:
        return element
    # Mirrors after a transposition are the other mirrors before it.
    return 4 | (element & 1) << 1 | (element & 2) >> 1


class RandTurn:
    """Turns and mirrors an image with its boxes at random, all eight symmetries of the square alike by default.

    Tissue has no up and no handedness. Pixels are permuted, never resampled, and boxes stay exact.

    Args:
        elements: Which symmetries to draw from, equally likely (see :func:`turn_image`).
        probability: How likely an image is touched at all. 1: the elements already contain "unchanged".

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(self, elements: Sequence[int] = ALL, *, probability: float = 1.0) -> None:
        if not elements or not set(elements) <= set(ALL):
            raise ConfigError(f"elements must be some of 0 to 7, but are {list(elements)}")
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"probability must be between 0 and 1, but is {probability!r}")
        self.elements = tuple(elements)
        self.probability = float(probability)

    def __call__(
        self, image: torch.Tensor, boxes: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws one symmetry and applies it.

        Args:
            image: (3, h, w).
            boxes: (k, 4) in pixels of the image.
            generator: CPU generator.
        """
        element = self.elements[int(torch.randint(len(self.elements), (), generator=generator))]
        if float(torch.rand((), generator=generator)) >= self.probability:
            return image, boxes
        size_px = (image.shape[-1], image.shape[-2])
        return turn_image(image, element), turn_boxes(boxes, element, size_px)


class ImageOnly:
    """A batch transform that moves nothing, such as ``RandStainJitter``, for one image; the boxes stay.

    Args:
        transform: Takes a batch (1, 3, h, w) and a generator.

    Raises:
        ConfigError: It cannot be called.
    """

    def __init__(self, transform: BatchTransform) -> None:
        if not callable(transform):
            raise ConfigError(f"transform must be a callable on a batch, but is {type(transform).__name__}")
        self.transform = transform

    def __call__(
        self, image: torch.Tensor, boxes: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Applies it.

        Args:
            image: (3, h, w).
            boxes: (k, 4), returned as they are.
            generator: CPU generator.
        """
        return self.transform(image[None], generator)[0], boxes
