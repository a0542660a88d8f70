# SPDX-License-Identifier: Apache-2.0
"""Other views of a field of view: turned, resized, stained otherwise, or noisy, and the way back for boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.transforms.stain_jitter import RandStainJitter

RGB = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class View(Protocol):
    """A picture made from another one, in which boxes can be traced back."""

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """The view (h', w', 3) uint8 of an image (h, w, 3) uint8; randomness comes from the sample's id alone."""
        ...

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """Boxes (B, 4) of the view in pixels of the image; ``sizes`` (B, 2) width and height of each box's image."""
        ...


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """See :class:`View`."""
        return np.ascontiguousarray(image[:, ::-1])

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """See :class:`View`."""
        x0, y0, x1, y1 = boxes.T
        return _boxes(sizes[:, 0] - x1, y0, sizes[:, 0] - x0, y1)


@dataclass(frozen=True)
class QuarterTurn:
    """Turned by 90 degrees against the clock."""

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """See :class:`View`."""
        return np.ascontiguousarray(np.rot90(image))

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """See :class:`View`."""
        x0, y0, x1, y1 = boxes.T
        return _boxes(sizes[:, 0] - y1, x0, sizes[:, 0] - y0, x1)


@dataclass(frozen=True)
class Resize:
    """Resized, both sides alike.

    Args:
        factor: of both sides.

    Raises:
        ConfigError: the factor is not above 0.
    """

    factor: float = 0.8

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ConfigError(f"the factor of a resized view must be above 0, but is {self.factor}")

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """See :class:`View`."""
        width, height = self._size(np.array([[image.shape[1], image.shape[0]]]))[0]
        method = Image.Resampling.HAMMING if self.factor < 1 else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(image).resize((int(width), int(height)), method))

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """See :class:`View`."""
        return (boxes * np.tile(sizes / self._size(sizes), 2)).astype(np.float32)

    def _size(self, sizes: IntArray) -> IntArray:
        return np.maximum(np.rint(sizes * self.factor), 1).astype(np.int64)


@dataclass(frozen=True)
class StainJitter:
    """Stains a little stronger, weaker or off-colour.

    Args:
        scale: see :class:`~tral_monai.transforms.stain_jitter.RandStainJitter`.
        shift: the same.
    """

    scale: float = 0.05
    shift: float = 0.05

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """See :class:`View`."""
        jitter = RandStainJitter(self.scale, self.shift, probability=1.0)
        batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        return jitter(batch, torch.Generator().manual_seed(sample_id))[0].permute(1, 2, 0).contiguous().numpy()

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """See :class:`View`."""
        return boxes


@dataclass(frozen=True)
class Noise:
    """Gaussian noise added to every value.

    Args:
        deviation: of the noise, in grey levels.

    Raises:
        ConfigError: the deviation is not above 0.
    """

    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ConfigError(f"the deviation of the noise must be above 0 grey levels, but is {self.deviation}")

    def apply(self, image: RGB, sample_id: int) -> RGB:
        """See :class:`View`."""
        generator = np.random.default_rng([sample_id, round(1000 * self.deviation)])
        noise = generator.standard_normal(image.shape, dtype=np.float32) * np.float32(self.deviation)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)

    def to_image(self, boxes: FloatArray, sizes: IntArray) -> FloatArray:
        """See :class:`View`."""
        return boxes


CALD_VIEWS: tuple[View, ...] = (Flip(), QuarterTurn(), Resize(0.8), StainJitter())
"""Views for CALD. Yu et al. take flip, cutout, resizing to 0.8 and a turn by 5 degrees of photographs; stained tissue
has no upright side, so a quarter turn, and a change of stain in place of holes."""

LAAL_NOISE: tuple[View, ...] = tuple(Noise(deviation) for deviation in (8.0, 16.0, 24.0, 32.0, 40.0, 48.0))
"""The six noise levels of Kao et al. 2018, in grey levels."""


def back_to_images(found: Detections, view: View, sizes: IntArray) -> Detections:
    """Detections of a view with boxes and proposals in pixels of the images.

    Args:
        found: what was found in the views of n images.
        view: how they were made.
        sizes: (n, 2) width and height of the images.
    """
    of_box = np.asarray(sizes, dtype=np.int64)[found.image_of_box]
    there = replace(found, boxes_px=view.to_image(np.asarray(found.boxes_px, dtype=np.float32), of_box))
    if found.proposals_px is None:
        return there
    return replace(there, proposals_px=view.to_image(np.asarray(found.proposals_px, dtype=np.float32), of_box))


def _boxes(*sides: npt.NDArray[Any]) -> FloatArray:
    return np.stack(sides, axis=1).astype(np.float32)
