# SPDX-License-Identifier: Apache-2.0
"""Turns and mirrors of whole tiles: the eight symmetries of a square, as exact permutations of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import checked_batch, required_generator
from tral_monai.transforms.cucim import Backend, checked_backend, dihedral_cucim, uses_cucim

# Element e: first transpose (bit 4), then mirror top to bottom (bit 2), then mirror left to right (bit 1).
ALL = (0, 1, 2, 3, 4, 5, 6, 7)
ROTATIONS = (0, 6, 3, 5)  # by 0, 90, 180 and 270 degrees counter-clockwise
FLIPS = (0, 1, 2)  # none, left to right, top to bottom


def apply_dihedral(image: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
    """Applies one symmetry of the square to each sample; all channels of a sample move together.

    Args:
        image: (B, C, H, W), any dtype; H = W where an element transposes.
        elements: (B,) int64, 0 to 7, on the image's device. Bits: 4 transpose, then 2 mirror top to bottom, then 1
            mirror left to right.

    Returns:
        (B, C, H, W), pixels permuted.
    """

    def where(bit: int, changed: torch.Tensor, unchanged: torch.Tensor) -> torch.Tensor:
        return torch.where((elements & bit).bool().view(-1, 1, 1, 1), changed, unchanged)

    if image.shape[-1] == image.shape[-2]:
        image = where(4, image.transpose(-1, -2), image)
    image = where(2, image.flip(-2), image)
    return where(1, image.flip(-1), image)


class RandDihedral:
    """Turns and mirrors each sample at random; the tiles of one triplet move together, so they still share a centre.

    Tissue under a microscope has no up and no handedness, so all eight symmetries are equally likely by default and
    none of them is resampled. The authors' code defines flips and rotations but never applies them: leave this out to
    reproduce the paper.

    Args:
        elements: Which symmetries to draw from, equally likely: :data:`ALL`, :data:`ROTATIONS`, :data:`FLIPS` or a
            list of 0 to 7 (see :func:`apply_dihedral`).
        probability: How likely a sample is touched at all. 1: the elements already contain "unchanged".
        backend: ``"torch"``, ``"cucim"`` (``image_rotate_90`` and ``image_flip`` through MONAI's ``CuCIMd``, on a
            GPU), or ``"auto"``: cuCIM where it can be used, else torch. The pixels are the same.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(self, elements: Sequence[int] = ALL, *, probability: float = 1.0, backend: Backend = "torch") -> None:
        if not elements or not set(elements) <= set(ALL):
            raise ConfigError(f"elements must be some of 0 to 7, but are {list(elements)}")
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"probability must be between 0 and 1, but is {probability!r}")
        self.elements = tuple(elements)
        self.probability = float(probability)
        self.backend = checked_backend(backend)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draws one symmetry per sample and applies it.

        Args:
            image: (B, 3 * scales, H, W).
            generator: CPU generator.

        Returns:
            The batch, same dtype and device.

        Raises:
            ConfigError: No generator, a wrong batch, or tiles that are not square where an element transposes.
        """
        image, generator = checked_batch(image), required_generator(generator, self)
        if max(self.elements) >= 4 and image.shape[-1] != image.shape[-2]:
            raise ConfigError(f"turns by 90 degrees need square tiles, but got {list(image.shape)}; use FLIPS")
        count = image.shape[0]
        drawn = torch.tensor(self.elements)[torch.randint(len(self.elements), (count,), generator=generator)]
        drawn[torch.rand(count, generator=generator) >= self.probability] = 0
        if uses_cucim(self.backend, image.device):
            return dihedral_cucim(image, drawn)
        return apply_dihedral(image, drawn.to(image.device, non_blocking=True))
