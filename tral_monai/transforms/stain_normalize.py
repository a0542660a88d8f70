# SPDX-License-Identifier: Apache-2.0
"""Stain normalisation after Macenko et al. (ISBI 2009): every tile as if it had been stained like the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import checked_batch, rgb_like
from tral_monai.transforms.cucim import Backend, checked_backend
from tral_monai.transforms.stain_profile import (
    MacenkoSettings,
    StainProfile,
    estimate_stains,
    optical_density,
    separate,
)


class MacenkoNormalize:
    """Takes the stains of each sample apart and mixes them again in the reference's colours and strength.

    Where nothing can be estimated (glass, a single stain), the sample stays exactly as it is.

    Args:
        target: What to make samples look like: a :class:`~tral_monai.transforms.stain_profile.StainProfile`, a mapping
            with ``vectors`` and ``concentrations``, or None for the reference of Macenko's MATLAB code.
        source: How the samples were stained, fitted once per slide with ``StainProfile.fit``: one colour map for
            the whole slide, which keeps differences between its tiles. None: estimated from each sample.
        per: Where stains are estimated: ``"triplet"``, over all magnifications of a sample together (the wide tile
            shows both stains where the 40x tile shows one, and all three get the same colours), or ``"tile"``.
        pixel_step: Estimate from every n-th row and column. 2: a quarter of the time; on 100 colon tiles it
            moved hematoxylin by 0.1 and eosin by 0.3 degrees (median), where two tiles differ by 4 and 10.
        settings: Constants of the method, a mapping or :class:`~tral_monai.transforms.stain_profile.MacenkoSettings`.
        backend: See :mod:`tral_monai.transforms.cucim`; there it is the estimate of the vectors.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """

    def __init__(
        self,
        target: StainProfile | Mapping[str, Sequence[Any]] | None = None,
        *,
        source: StainProfile | Mapping[str, Sequence[Any]] | None = None,
        per: Literal["triplet", "tile"] = "triplet",
        pixel_step: int = 2,
        settings: MacenkoSettings | Mapping[str, Any] | None = None,
        backend: Backend = "torch",
    ) -> None:
        if per not in ("triplet", "tile"):
            raise ConfigError(f"per must be 'triplet' or 'tile', but is {per!r}")
        if pixel_step < 1:
            raise ConfigError(f"pixel_step must be at least 1, but is {pixel_step!r}")
        self.target = _profile(target) or StainProfile()
        self.source = _profile(source)
        self.per = per
        self.pixel_step = int(pixel_step)
        self.settings = settings if isinstance(settings, MacenkoSettings) else MacenkoSettings(**(settings or {}))
        self.backend = checked_backend(backend)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Normalises a batch.

        Args:
            image: (B, 3 * scales, H, W) RGB.
            generator: Not used.

        Returns:
            The batch, same dtype and device.

        Raises:
            ConfigError: A wrong batch.
        """
        tiles = checked_batch(image).unflatten(1, (-1, 3))  # (B, S, 3, H, W)
        rgb = tiles.to(torch.float32)
        light = self.settings.transmitted_light
        if self.source is not None:
            vectors, concentrations = (t.unsqueeze(0) for t in self.source.tensors(image.device))
            usable = torch.ones(1, dtype=torch.bool, device=image.device)
        else:
            step = self.pixel_step
            vectors, concentrations, usable = estimate_stains(
                self._pixels(rgb[..., ::step, ::step]), self.settings, backend=self.backend
            )
        target_vectors, target_concentrations = self.target.tensors(image.device)
        pixels = self._pixels(rgb)
        amounts = separate(optical_density(pixels, light), vectors)
        amounts = amounts * (target_concentrations / concentrations).unsqueeze(2)
        normalised = light * torch.exp(-(target_vectors @ amounts))
        result = torch.where(usable.view(-1, 1, 1), normalised, pixels)
        return rgb_like(self._tiles(result, rgb).flatten(1, 2), image)

    def _pixels(self, rgb: torch.Tensor) -> torch.Tensor:
        """(B, S, 3, H, W) to (N, 3, P), where N counts what is estimated separately."""
        if self.per == "tile":
            return rgb.flatten(0, 1).flatten(2)
        return rgb.transpose(1, 2).flatten(2)

    def _tiles(self, pixels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        batch, scales, _, height, width = like.shape
        if self.per == "tile":
            return pixels.reshape(batch, scales, 3, height, width)
        return pixels.reshape(batch, 3, scales, height, width).transpose(1, 2)


def _profile(value: StainProfile | Mapping[str, Sequence[Any]] | None) -> StainProfile | None:
    if value is None or isinstance(value, StainProfile):
        return value
    if set(value) != {"vectors", "concentrations"}:
        raise ConfigError(f"a stain profile must have vectors and concentrations, but has {sorted(value)}")
    return StainProfile(value["vectors"], value["concentrations"])
