# SPDX-License-Identifier: Apache-2.0
"""Generated slides of plain colours, and a network that knows them: what a map must show is known by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
import torch

TILE = 128
COLOURS = {".": (253, 253, 253), "S": (228, 140, 190), "M": (190, 70, 130), "B": (140, 30, 40), "D": (90, 120, 190)}
CLASSES = {"S": "Stroma", "M": "Muscle", "B": "Blood", "D": "Damaged"}

# Glass around the tissue and a hole of glass in it. Damaged is not there by default.
PATTERN = (
    "................",
    "................",
    "..SSSSSSSMMMMM..",
    "..SSSSSSSMMMMM..",
    "..SSS....MMMMM..",
    "..SSS....MMMMM..",
    "..SSS....BBBMM..",
    "..SSS....BBBMM..",
    "..SSSSSSSBBBMM..",
    "..SSSSSSSMMMMM..",
    "................",
    "................",
)


def slide_pixels(pattern: tuple[str, ...] = PATTERN, cell_px: int = TILE) -> npt.NDArray[np.uint8]:
    """One cell of plain colour per character."""
    cells = np.array([[COLOURS[character] for character in row] for row in pattern], dtype=np.uint8)
    return cells.repeat(cell_px, axis=0).repeat(cell_px, axis=1)


def write_slide(path: Path, pixels: npt.NDArray[np.uint8], *, mpp: float | None = 0.25) -> Path:
    """A tiled JPEG pyramid (levels 1, 4, 16) as scanners' exports have it."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        for level, factor in enumerate((1, 4, 16)):
            file.write(
                np.ascontiguousarray(pixels[::factor, ::factor]),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                subfiletype=int(level > 0),
                **(resolution if level == 0 else {}),
            )
    return path


def break_tile(path: Path, level: int, tile: int) -> None:
    """Overwrite one JPEG tile, so that it cannot be decoded."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        offset, count = page.dataoffsets[tile], page.databytecounts[tile]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\0" * count)


class ColourNet(torch.nn.Module):
    """Tells the class from the mean colour of the 40x tile: logits fall with the squared distance.

    Args:
        scale: the larger, the surer.
    """

    def __init__(self, scale: float = 0.05) -> None:
        super().__init__()
        self.classes = tuple(CLASSES.values())
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.register_buffer("colours", torch.tensor([COLOURS[key] for key in CLASSES], dtype=torch.float32))
        self.batch_sizes: list[int] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.uint8
        assert image.shape[1:] == (9, TILE, TILE)
        self.batch_sizes.append(len(image))
        mean = image[:, :3].float().mean(dim=(2, 3))
        return -self.scale * torch.cdist(mean, self.colours)  # type: ignore[arg-type]
