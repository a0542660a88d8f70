# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from tral_monai.annotations.nuclei.model import NucleusField


@pytest.fixture
def make_field():
    """Makes a field from (class, xmin, ymin, xmax, ymax) tuples; a class with a trailing '?' is ignored."""

    def make(name="f", nuclei=(), *, size=(100, 100), mpp=0.25, image=None, **more):
        return NucleusField(
            name=name,
            image=image,
            width_px=size[0],
            height_px=size[1],
            mpp=mpp,
            boxes_px=np.array([box for _, *box in nuclei], np.float32).reshape(-1, 4),
            classes=tuple(kind.rstrip("?") for kind, *_ in nuclei),
            ignored=np.array([kind.endswith("?") for kind, *_ in nuclei], bool),
            **more,
        )

    return make


@pytest.fixture
def gradient(tmp_path):
    """A 100 x 80 PNG whose red is the column, green the row, blue 7."""

    def write(name="a.png", size=(100, 80)):
        y, x = np.mgrid[: size[1], : size[0]]
        pixels = np.stack([x, y, np.full_like(x, 7)], 2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def slide(tmp_path):
    """A tiled 0.25 mpp TIFF of 512 x 512 with a second level; red and green run from 0 to 255 across."""
    y, x = np.mgrid[:512, :512]
    pixels = np.stack([x // 2, y // 2, np.full_like(x, 9)], 2).astype(np.uint8)
    resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(pixels, tile=(128, 128), photometric="rgb", subifds=0, **resolution)
        writer.write(pixels[::2, ::2], tile=(128, 128), photometric="rgb", subfiletype=1)
    return tmp_path / "s.tif"
