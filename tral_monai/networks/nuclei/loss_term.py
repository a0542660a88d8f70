# SPDX-License-Identifier: Apache-2.0
"""One term of the detection loss, kept apart by image, because loss prediction ranks images by their own loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossTerm:
    """Sums of a loss over the samples (anchors or RoIs) of each of n images.

    Args:
        sums: (n,) float.
        counts: (n,) float, by how much each is divided to be a mean.
    """

    sums: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, images: torch.Tensor, counts: torch.Tensor) -> LossTerm:
        """Collect the losses of single samples.

        Args:
            values: (m,) losses.
            images: (m,) int64, image of each, 0 to n - 1.
            counts: (n,) what to divide by.
        """
        sums = values.new_zeros(len(counts)).index_add(0, images, values)
        return cls(sums, counts.to(values.dtype))

    def batch(self) -> torch.Tensor:
        """() the mean over all samples of the batch, as torchvision's Faster R-CNN has it."""
        return self.sums.sum() / self.counts.sum().clamp(min=1)

    def per_image(self) -> torch.Tensor:
        """(n,) the mean over the samples of each image; 0 for an image without any."""
        return self.sums / self.counts.clamp(min=1)
