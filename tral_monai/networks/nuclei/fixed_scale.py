# SPDX-License-Identifier: Apache-2.0
"""From raw RGB fields of view to the batch that the backbone sees: normalised, enlarged by a fixed factor, padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from tral_monai.networks.normalization import Normalization

Target = dict[str, torch.Tensor]


class FixedScaleTransform(GeneralizedRCNNTransform):
    """torchvision's transform without its resizing of every image to 800 px: sizes in histology have a meaning.

    Args:
        normalization: What the backbone expects, in grey levels.
        upsample: Factor of enlargement.
        size_divisible: Images are padded on the right and below to a multiple of this.
    """

    def __init__(self, normalization: Normalization, *, upsample: float, size_divisible: int) -> None:
        super().__init__(0, 0, list(normalization.mean), list(normalization.std), size_divisible=size_divisible)
        self.upsample = float(upsample)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, 3, 1, 1))

    def forward(
        self, images: Sequence[torch.Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Prepare a batch.

        Args:
            images: (3, h, w) uint8 or float on the scale 0 to 255 each; sizes may differ.
            targets: ``boxes`` (k, 4) in pixels of the image, and ``labels``.

        Returns:
            The batch, padded with zeros after normalisation, and the targets in its pixels.
        """
        sizes = [self.scaled_size(image) for image in images]
        stride = self.size_divisible
        height = -(-max(h for h, _ in sizes) // stride) * stride
        width = -(-max(w for _, w in sizes) // stride) * stride
        if len({tuple(image.shape) for image in images}) == 1:  # one operation for all
            batch = self._scaled(torch.stack(list(images)), sizes[0])
            batch = functional.pad(batch, (0, width - sizes[0][1], 0, height - sizes[0][0]))
        else:
            batch = torch.zeros(len(images), 3, height, width, device=self.mean.device)
            for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
                batch[row, :, : size[0], : size[1]] = self._scaled(image[None], size)[0]
        scaled = None if targets is None else [self._scaled_target(*pair) for pair in zip(images, targets, strict=True)]
        return ImageList(batch.contiguous(memory_format=torch.channels_last), sizes), scaled

    def scaled_size(self, image: torch.Tensor) -> tuple[int, int]:
        """Height and width of an image after enlargement."""
        height, width = image.shape[-2:]
        return max(round(height * self.upsample), 1), max(round(width * self.upsample), 1)

    def scale_boxes(self, boxes: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(k, 4) boxes of an image in pixels of the enlarged one."""
        return boxes.to(self.mean) * self._factors(image)

    def unscale_boxes(self, boxes: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The reverse of :meth:`scale_boxes`."""
        return boxes / self._factors(image)

    def _factors(self, image: torch.Tensor) -> torch.Tensor:
        height, width = self.scaled_size(image)
        x, y = width / image.shape[-1], height / image.shape[-2]
        return torch.tensor([x, y, x, y], device=self.mean.device)

    def _scaled_target(self, image: torch.Tensor, target: Target) -> Target:
        return {**target, "boxes": self.scale_boxes(target["boxes"], image)}

    def _scaled(self, batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        batch = (batch.to(self.mean) - self.mean) / self.std
        if batch.shape[-2:] == size:
            return batch
        return functional.interpolate(batch, size=size, mode="bilinear", align_corners=False)
