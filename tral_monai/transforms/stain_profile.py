# SPDX-License-Identifier: Apache-2.0
"""How a scan was stained: stain vectors and full-stain concentrations after Macenko et al. (ISBI 2009), batched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import checked_batch
from tral_monai.transforms.cucim import Backend, stain_vectors_cucim, uses_cucim

_MIN_ANGLE_DEGREES = 5.0


@dataclass(frozen=True)
class MacenkoSettings:
    """Constants of Macenko's method.

    Attributes:
        transmitted_light: Grey level of light through glass; brighter pixels count as glass. 240.
        percentile: Of the angles of pixels in the stain plane that count as pure stains; the full concentration is
            percentile 100 minus this. 1 keeps dust and pigment from being taken for a stain.
        transparent_below: Optical density (natural logarithm) that a pixel must exceed to count as tissue. 0.345 is
            the paper's 0.15 in decadic logarithm.
        channels: In how many channels it must exceed it, ``"any"`` or ``"all"``. ``"any"``, as in cuCIM, keeps pixels
            of pure eosin, which lets red light through: stains of made-up tiles are found within 1.5 degrees. MATLAB's
            original and MONAI ask for 0.15 in ``"all"`` channels, which loses those pixels and bends eosin towards
            hematoxylin (by 14 degrees there); with these two settings this gives MONAI's vectors.
        min_tissue: Share of pixels that must be tissue; below it the tile stays as it is, because percentiles of a few
            pixels of dirt would colour the glass. 0.02 is a nucleus or two in a tile of 128 px.
    """

    transmitted_light: float = 240.0
    percentile: float = 1.0
    transparent_below: float = 0.345
    channels: Literal["any", "all"] = "any"
    min_tissue: float = 0.02

    def __post_init__(self) -> None:
        if self.channels not in ("any", "all"):
            raise ConfigError(f"channels must be 'any' or 'all', but is {self.channels!r}")
        for name, low, high in (
            ("transmitted_light", 1.0, 255.0),
            ("percentile", 0.0, 50.0),
            ("transparent_below", 0.0, 5.0),
            ("min_tissue", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, but is {getattr(self, name)!r}")


class StainEstimate(NamedTuple):
    """Stains of N images.

    Attributes:
        vectors: (N, 3, 2) float32, optical density of R, G, B per unit of hematoxylin and of eosin; columns of
            length 1.
        concentrations: (N, 2) float32, the concentration that counts as full stain.
        usable: (N,) bool: False where an image has too little tissue or only one stain; its numbers mean nothing then.
    """

    vectors: torch.Tensor
    concentrations: torch.Tensor
    usable: torch.Tensor


@dataclass(frozen=True)
class StainProfile:
    """How one scan, or a reference, was stained.

    The default is the reference of Macenko's MATLAB code, which MONAI and cuCIM use as well.

    Attributes:
        vectors: 3 rows (R, G, B), 2 columns (hematoxylin, eosin): optical density per unit of stain.
        concentrations: Full-stain concentration of hematoxylin and of eosin.
    """

    vectors: Sequence[Sequence[float]] = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
    concentrations: Sequence[float] = (1.9705, 1.0308)

    def __post_init__(self) -> None:
        if len(self.vectors) != 3 or any(len(row) != 2 for row in self.vectors):
            raise ConfigError(f"stain vectors must be 3 rows (R, G, B) of 2 stains, but are {self.vectors!r}")
        if len(self.concentrations) != 2 or min(self.concentrations) <= 0:
            raise ConfigError(f"stain concentrations must be two numbers above 0, but are {self.concentrations!r}")

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, 2) vectors and (2,) concentrations, float32."""
        return (
            torch.tensor(self.vectors, dtype=torch.float32, device=device),
            torch.tensor(self.concentrations, dtype=torch.float32, device=device),
        )

    @classmethod
    def fit(cls, image: torch.Tensor, *, settings: MacenkoSettings | None = None) -> StainProfile:
        """The profile of all tiles of a batch taken together, such as a sample of one slide.

        Args:
            image: (B, 3 * scales, H, W) RGB, uint8 or float 0 to 255. At most about a million pixels are used.
            settings: Constants of the method.

        Raises:
            ConfigError: The tiles hold too little tissue or only one stain.
        """
        pixels = checked_batch(image).unflatten(1, (-1, 3)).permute(2, 0, 1, 3, 4).reshape(1, 3, -1)
        pixels = pixels[:, :, :: max(1, pixels.shape[2] >> 20)]
        estimate = estimate_stains(pixels.float(), settings or MacenkoSettings())
        if not bool(estimate.usable[0]):
            raise ConfigError("no stain profile can be fitted: too little tissue or only one stain in these tiles")
        return cls(estimate.vectors[0].tolist(), estimate.concentrations[0].tolist())

    @classmethod
    def from_image_file(cls, path: str | os.PathLike[str], *, settings: MacenkoSettings | None = None) -> StainProfile:
        """The profile of a reference image (PNG, JPEG, ...).

        Args:
            path: The file.
            settings: Constants of the method.

        Raises:
            ConfigError: See :meth:`fit`.
        """
        import numpy as np
        from PIL import Image

        with Image.open(path) as file:
            rgb = np.asarray(file.convert("RGB")).copy()
        return cls.fit(torch.from_numpy(rgb).permute(2, 0, 1)[None], settings=settings)


def optical_density(rgb: torch.Tensor, transmitted_light: float) -> torch.Tensor:
    """Beer-Lambert: ``-ln(rgb / transmitted_light)``, with rgb held between 1 and the light through glass."""
    return -(rgb.clamp(1.0, transmitted_light) / transmitted_light).log()


def estimate_stains(rgb: torch.Tensor, settings: MacenkoSettings, *, backend: Backend = "torch") -> StainEstimate:
    """Estimates both stains of each image from its own pixels.

    The full-stain concentration is a percentile over the tissue pixels. MATLAB's original, MONAI and cuCIM take it over
    all pixels, so that there a tile with much glass comes out too dark; on tiles full of tissue the two agree.

    Args:
        rgb: (N, 3, P) float, scale 0 to 255.
        settings: Constants of the method.
        backend: Who computes the vectors, see :mod:`tral_monai.transforms.cucim`.
    """
    density = optical_density(rgb, settings.transmitted_light)
    dense = density > settings.transparent_below
    tissue = dense.any(dim=1) if settings.channels == "any" else dense.all(dim=1)
    count = tissue.sum(dim=1)
    usable = (count >= 2) & (count >= settings.min_tissue * rgb.shape[2])
    fallback, full = StainProfile().tensors(rgb.device)

    vectors = fallback.expand(rgb.shape[0], 3, 2).clone()
    if uses_cucim(backend, rgb.device):
        for row in usable.nonzero().flatten().tolist():
            vectors[row] = stain_vectors_cucim(density[row, :, tissue[row]], settings.percentile)
    else:
        found = _stain_vectors(density, tissue, count, settings.percentile)
        vectors = torch.where(usable.view(-1, 1, 1), found, vectors)

    cosine = (vectors[:, :, 0] * vectors[:, :, 1]).sum(dim=1).clamp(-1.0, 1.0)
    angle = torch.rad2deg(torch.acos(cosine))
    usable &= angle > _MIN_ANGLE_DEGREES
    vectors = torch.where(usable.view(-1, 1, 1), vectors, fallback)
    high = 1.0 - settings.percentile / 100.0
    amounts = separate(density, vectors)
    concentrations = torch.stack([_quantiles(a, tissue, [high])[:, 0] for a in amounts.unbind(dim=1)], dim=1)
    usable &= (concentrations > 0.01).all(dim=1)
    return StainEstimate(vectors, torch.where(usable.view(-1, 1), concentrations, full), usable)


def separate(density: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Amounts of both stains in each pixel, least squares.

    Args:
        density: (N, 3, P) optical density.
        vectors: (N, 3, 2) stain vectors.

    Returns:
        (N, 2, P).
    """
    gram = vectors.mT @ vectors
    return torch.linalg.solve(gram, vectors.mT) @ density


def _stain_vectors(density: torch.Tensor, tissue: torch.Tensor, count: torch.Tensor, percentile: float) -> torch.Tensor:
    weight = tissue.unsqueeze(1).to(density.dtype)
    total = count.clamp(min=2).view(-1, 1, 1)
    centred = (density - (density * weight).sum(dim=2, keepdim=True) / total) * weight
    covariance = (centred @ centred.mT).double() / (total - 1)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, :, [2, 1]].to(density.dtype)
    # Absorbing red is positive along both axes, so that the angles of stains lie around 0 and do not wrap.
    axes = torch.where(axes[:, :1] < 0, -axes, axes)
    projected = axes.mT @ density
    angles = torch.atan2(projected[:, 1], projected[:, 0])
    limits = _quantiles(angles, tissue, [percentile / 100.0, 1.0 - percentile / 100.0])
    pure = torch.stack([limits.cos(), limits.sin()], dim=1)
    found = axes @ pure
    # Hematoxylin is blue: of the two it absorbs more red.
    swap = found[:, 0, 0] < found[:, 0, 1]
    found = torch.where(swap.view(-1, 1, 1), found.flip(2), found)
    return found / found.norm(dim=1, keepdim=True)


def _quantiles(values: torch.Tensor, mask: torch.Tensor, fractions: list[float]) -> torch.Tensor:
    """Linear-interpolated quantiles of the masked values of each row, as numpy's percentile: (N, P) to (N, K)."""
    ordered = values.masked_fill(~mask, float("inf")).sort(dim=1).values
    last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    rank = torch.tensor(fractions, dtype=torch.float64, device=values.device) * last
    low = rank.floor().long()
    below, above = ordered.gather(1, low), ordered.gather(1, torch.minimum(low + 1, last))
    return torch.lerp(below, above, (rank - low).to(values.dtype))
