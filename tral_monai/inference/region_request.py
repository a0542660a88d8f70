# SPDX-License-Identifier: Apache-2.0
"""The region of a slide that a server is asked about, in the form in which MONAI Label passes images on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Transform

from tral_monai.errors import ConfigError
from tral_monai.inference.slide_window import Rectangle

PATH_KEY = "filename_or_obj"
"""Where MONAI's readers note an image's file."""


class RegionRequestd(Transform):
    """Turns ``image`` (a path), ``location`` and ``size`` of a request into what a ``RegionInferer`` takes.

    No pixel is read here: a tile at low magnification reaches far beyond the region, and only the network's mapper
    knows which tiles there are. The request's ``level`` is left aside, because networks look at the magnifications that
    they were trained at; location and size count level-0 pixels whatever it says.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace ``image``.

        Args:
            data: ``image`` is the path of a slide; ``location`` (x, y) and ``size`` (width, height) in level-0 px, both
                left out or 0 for the whole slide.

        Returns:
            The same, with a :class:`monai.data.MetaTensor` as ``image``: x, y, width, height, int64, all 0 for the
            whole slide, and the path in its ``meta``.

        Raises:
            ConfigError: ``image`` is no path, or location or size are not two whole numbers.
        """
        image = data.get("image")
        if not isinstance(image, str | os.PathLike):
            raise ConfigError(
                f"a region is read from a slide's file, but image is a {type(image).__name__}; ask for an image of the "
                "server's folder"
            )
        region = [*_two_numbers(data, "location"), *_two_numbers(data, "size")]
        if any(region) and min(region[2:]) < 1:
            raise ConfigError(f"a region must be at least 1 x 1 px, but its size is {region[2]} x {region[3]}")
        return {**data, "image": MetaTensor(torch.tensor(region), meta={PATH_KEY: os.fspath(image)})}


def region_of(image: object) -> tuple[str, Rectangle | None]:
    """Path and region from what :class:`RegionRequestd` made.

    Args:
        image: the tensor, with or without a batch dimension of 1.

    Returns:
        The slide's path, and (x, y, width, height) in level-0 px, None for the whole slide.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(image, MetaTensor) or image.numel() != 4 or PATH_KEY not in image.meta:
        raise ConfigError(
            f"expected a region of a slide, but got a {type(image).__name__}; use RegionRequestd as the preprocessing"
        )
    x, y, width, height = (int(value) for value in image.flatten().tolist())
    return str(image.meta[PATH_KEY]), (x, y, width, height) if width else None


def _two_numbers(data: Mapping[str, Any], name: str) -> list[int]:
    value = data.get(name)
    if value is None:
        return [0, 0]
    if not isinstance(value, Sequence) or len(value) != 2 or not all(_is_whole(number) for number in value):
        raise ConfigError(f"{name} must be two whole numbers of level-0 pixels, but is {value!r}")
    return [int(number) for number in value]


def _is_whole(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and float(number).is_integer()
