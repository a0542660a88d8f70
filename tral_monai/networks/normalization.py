# SPDX-License-Identifier: Apache-2.0
"""What a network does to raw RGB values before its first convolution, as two vectors that a checkpoint can record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from tral_monai.errors import ConfigError

Rgb = tuple[float, float, float]
# What a bundle config can say: a preset's name or {"mean": [...], "std": [...]} in grey levels. Union, because Python
# 3.10 evaluates this line.
NormalizationLike = Union[str, Mapping[str, Sequence[float]], "Normalization"]


def _rgb(values: Sequence[float], name: str) -> Rgb:
    if len(values) != 3:
        raise ConfigError(f"normalization {name} must be three finite numbers (R, G, B), but is {list(values)!r}")
    return (float(values[0]), float(values[1]), float(values[2]))


@dataclass(frozen=True)
class Normalization:
    """Per-channel affine map ``(rgb - mean) / std`` of RGB values on the scale 0 to 255.

    Attributes:
        mean: (R, G, B), grey levels 0 to 255.
        std: (R, G, B), grey levels, above 0.
    """

    mean: Rgb
    std: Rgb

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise ConfigError(f"normalization {name} must be three finite numbers (R, G, B), but is {values!r}")
        if min(self.std) <= 0:
            raise ConfigError(f"normalization std must be above 0 in every channel, but is {self.std!r}")

    @classmethod
    def from_unit_range(cls, mean: Sequence[float], std: Sequence[float]) -> Normalization:
        """The same map from the convention of torchvision and timm, whose RGB runs from 0 to 1."""
        return cls(_rgb([255.0 * float(v) for v in mean], "mean"), _rgb([255.0 * float(v) for v in std], "std"))


# raw255: what the published TRI-CNN was fed (uint8 RGB, no scaling, no mean subtraction, no BGR).
# imagenet: torchvision's ImageNet weights. minus_one_one: Inception's and TensorFlow's convention.
PRESETS: dict[str, Normalization] = {
    "raw255": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "unit": Normalization((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "imagenet": Normalization.from_unit_range((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "minus_one_one": Normalization.from_unit_range((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def resolve_normalization(value: NormalizationLike, *, auto: Normalization) -> Normalization:
    """Turns what a config says into numbers.

    Args:
        value: ``"auto"``, a key of :data:`PRESETS`, or a mapping with ``mean`` and ``std`` (three grey levels each).
        auto: what ``"auto"`` stands for (the backbone's own).

    Returns:
        The normalisation.

    Raises:
        ConfigError: An unknown name, a missing key, or numbers that are not usable.
    """
    if isinstance(value, Normalization):
        return value
    if isinstance(value, str):
        if value == "auto":
            return auto
        if value not in PRESETS:
            raise ConfigError(f"normalization must be one of {['auto', *PRESETS]} or mean and std, but is {value!r}")
        return PRESETS[value]
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"}:
        raise ConfigError(f"normalization must be a name or a mapping with the keys mean and std, but is {value!r}")
    return Normalization(_rgb(value["mean"], "mean"), _rgb(value["std"], "std"))
