# SPDX-License-Identifier: Apache-2.0
"""The label map of a picture, as 3D Slicer's single-image route takes it: a value per class on its own grid."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tral_monai.annotations.rasterise import fill_polygons
from tral_monai.errors import ConfigError, OutputError
from tral_monai.label_app.wsi_result import Shapes

EXTENSIONS = (".nrrd", ".nii.gz", ".nii", ".png")
"""What a label map may be written as."""

MAX_PX = 8192
"""Longest side of an image that gets a label map."""


def label_map(shapes: Shapes, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Paint shapes; where two overlap, the one with the higher score stays on top.

    Args:
        shapes: what was found, in pixels of the picture.
        size_px: (width, height) of the picture.

    Returns:
        (height, width) uint8: 0 where nothing is, else the class's value of ``shapes.values``.
    """
    canvas = np.zeros((size_px[1], size_px[0]), dtype=np.uint8)
    order = np.argsort(shapes.scores, kind="stable")
    for polygon, value in zip(shapes.polygons[order], shapes.labels[order].tolist(), strict=True):
        xmin, ymin, xmax, ymax = (int(side) for side in polygon.bounds)
        part = canvas[max(ymin, 0) : ymax, max(xmin, 0) : xmax]
        inside = np.zeros(part.shape, dtype=bool)
        fill_polygons(inside, [polygon], pitch=1.0, origin=(max(xmin, 0), max(ymin, 0)))
        part[inside] = value
    return canvas


def extension_of(value: Any) -> str:
    """A checked ``result_extension``; ``.nrrd`` where none is named.

    Raises:
        ConfigError: it is none that a label map can be written as.
    """
    if value in (None, ""):
        return ".nrrd"
    if value not in EXTENSIONS:
        raise ConfigError(f"result_extension must be one of {', '.join(EXTENSIONS)}, but is {str(value)[:60]!r}")
    return str(value)


def write_label_map(labels: npt.NDArray[np.uint8], extension: str, source: Path) -> Path:
    """Write a label map to a new temporary file, with the pixel spacing that Slicer gives to the picture.

    Args:
        labels: (height, width) uint8.
        extension: one of :data:`EXTENSIONS`.
        source: the picture.

    Raises:
        OutputError: the file cannot be written.
    """
    file = Path(tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(suffix=extension, delete=False) as stream:
            file = Path(stream.name)
        if extension == ".png":
            Image.fromarray(labels).save(file)
        else:
            _write_volume(labels, file, source)
    except (OSError, RuntimeError) as error:  # ITK raises RuntimeError, on a full disk too
        if file.is_file():
            file.unlink()
        raise OutputError(
            f"cannot write the label map ({error}); check that the folder '{file.parent}' has free space, and ask again"
        ) from error
    return file


def _write_volume(labels: npt.NDArray[np.uint8], file: Path, source: Path) -> None:
    import itk  # takes a second, and MONAI Label needs it too

    image = itk.image_from_array(np.ascontiguousarray(labels))
    image.SetSpacing(_spacing(itk, source))
    itk.imwrite(image, str(file), compression=True)


def _spacing(itk: Any, source: Path) -> list[float]:
    """Slicer takes a TIFF's resolution for its spacing; a label map with another would be shown at another size."""
    reader = itk.ImageIOFactory.CreateImageIO(str(source), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        return [1.0, 1.0]
    reader.SetFileName(str(source))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # such as a TIFF of a kind that ITK cannot decode: Slicer cannot show it either
        return [1.0, 1.0]
    return [float(reader.GetSpacing(axis)) for axis in (0, 1)]
