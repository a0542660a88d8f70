# SPDX-License-Identifier: Apache-2.0
"""Stain augmentation: each sample as if its stains had come out a little stronger, weaker or off-colour."""

from __future__ import annotations

import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import checked_batch, required_generator, rgb_like

# Optical density of R, G, B per unit of hematoxylin, eosin and DAB (rows), Ruifrok & Johnston 2001; rows of length 1.
# The third colour stands for whatever the first two do not explain (blood pigment, ink), so nothing is lost.
_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


class RandStainJitter:
    """Scales and shifts the amounts of hematoxylin, eosin and residual colour of each sample (Tellez et al. 2018).

    ``amount' = amount * (1 + a) + b``, with a and b drawn per sample and stain; the tiles of one triplet share them, as
    they come from one slide. Computed on the optical density, exactly invertible: with both ranges at 0 every pixel
    stays.

    Args:
        scale: a is uniform in -scale to scale. 0.05 is the "light" range of Tellez et al.; they use 0.2 as "strong".
        shift: b likewise, in optical density (natural logarithm). 0.05 changes a pixel by about 5 % of its brightness.
        probability: How likely a sample is touched. 0.5 leaves half of each batch in the site's own colours, which
            are what the model is for.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(self, scale: float = 0.05, shift: float = 0.05, *, probability: float = 0.5) -> None:
        for name, value, high in (("scale", scale, 1.0), ("shift", shift, 1.0), ("probability", probability, 1.0)):
            if not 0.0 <= value <= high:
                raise ConfigError(f"{name} must be between 0 and {high:g}, but is {value!r}")
        self.scale, self.shift, self.probability = float(scale), float(shift), float(probability)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draws a jitter per sample and applies it.

        Args:
            image: (B, 3 * scales, H, W) RGB.
            generator: CPU generator.

        Returns:
            The batch, same dtype and device. Samples that were not drawn are unchanged to the bit.

        Raises:
            ConfigError: No generator, or a wrong batch.
        """
        image, generator = checked_batch(image), required_generator(generator, self)
        count = image.shape[0]
        factor = 1.0 + self.scale * (2.0 * torch.rand(count, 3, generator=generator) - 1.0)
        offset = self.shift * (2.0 * torch.rand(count, 3, generator=generator) - 1.0)
        touched = torch.rand(count, generator=generator) < self.probability
        stains = torch.tensor(_HED, dtype=torch.float64)
        stains = stains / stains.norm(dim=1, keepdim=True)
        # Density is a row vector: amounts = density @ inverse, density = amounts @ stains. Both steps in one matrix.
        matrix = (stains.inverse() @ (factor.double().unsqueeze(2) * stains)).mT
        added = offset.double() @ stains

        matrix = matrix.float().to(image.device, non_blocking=True)
        added = added.float().view(count, 1, 3, 1, 1).to(image.device, non_blocking=True)
        tiles = image.unflatten(1, (-1, 3)).to(torch.float32)  # (B, S, 3, H, W)
        density = -((tiles + 1.0) / 256.0).log()  # from 0 (white) to ln 256 (black), and back without a loss
        density = torch.einsum("bij,bsjhw->bsihw", matrix, density) + added
        jittered = rgb_like((256.0 * torch.exp(-density) - 1.0).flatten(1, 2), image)
        return torch.where(touched.view(-1, 1, 1, 1).to(image.device), jittered, image)
