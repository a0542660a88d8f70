# SPDX-License-Identifier: Apache-2.0
"""Reads the files in which 3D Slicer submits what was drawn: label maps, and its own segmentations (``.seg.nrrd``).

A pixel of the file's array is the pixel of the image in the same column and row. Slicer loads a PNG, JPEG or TIFF as a
volume of one slice whose voxel (i, j, 0) is the pixel in column i and row j, and exports what was drawn on the grid of
that volume. Its NRRD files name the space left-posterior-superior or right-anterior-superior, and its NIfTI files the
latter; the two differ by the signs of x and y in the directions, not by the order of the voxels. So signs are passed
over: to turn the array by them would mirror the labels. Directions that swap or tilt the axes are refused.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import AnnotationError

_READERS = {".nrrd": "NrrdImageIO", ".nii": "NiftiImageIO", ".nii.gz": "NiftiImageIO"}
SUFFIXES = tuple(_READERS)
"""Suffixes of label maps; ``.seg.nrrd`` is one of ``.nrrd``."""
NOT_LABELS = ("background", "foreground_scribbles", "background_scribbles")
"""Names of segments that are no labels; Slicer leaves them out of a label map, but not out of a segmentation."""
LARGEST = 65535
"""Largest value of a label map."""
_MOST_VOXELS = 2**28  # of all layers together; Slicer needs a layer only where segments overlap
_DATA_FILE = re.compile(rb"data ?file\s*:", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Segment:
    """What a value of a label map means.

    Attributes:
        name: the class, as the annotator wrote it.
        value: the value, from 1.
        layer: the layer in which it has that value, from 0; a plain label map has one.
    """

    name: str
    value: int
    layer: int = 0


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """A label map on the grid of its image.

    Attributes:
        layers: (n, height, width) uint16; 0 where nothing was drawn.
        segments: what the file itself says of its values; None where it says nothing.
    """

    layers: npt.NDArray[np.uint16]
    segments: tuple[Segment, ...] | None


def read_label_map(path: Path, size_px: Sequence[int]) -> LabelMap:
    """Read a label map.

    Args:
        path: NRRD or NIfTI file.
        size_px: (width, height) of the image that it is about. A segmentation of Slicer's may hold less of it.

    Raises:
        AnnotationError: it cannot be read, has another size, several slices, turned axes, or values that are no labels.
    """
    import SimpleITK as sitk  # comes with MONAI Label

    suffix = next(one for one in SUFFIXES[::-1] if path.name.lower().endswith(one))
    if suffix == ".nrrd":
        _refuse_other_files(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[suffix])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        keys = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        offset = _offset(keys)
        _check_grid(reader.GetSize(), reader.GetDirection(), offset, size_px)  # before pixels take memory
        if reader.GetNumberOfComponents() * math.prod(size_px) > _MOST_VOXELS:
            raise AnnotationError(
                f"the label map has {reader.GetNumberOfComponents()} layers, too many for an image of "
                f"{size_px[0]} x {size_px[1]} pixels; let no segments overlap"
            )
        pixels = sitk.GetArrayFromImage(reader.Execute())
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1:] or ["no memory"]
        raise AnnotationError(f"the label map cannot be read ({reason[0]}); save and submit it again") from error
    width, height = reader.GetSize()[:2]
    found = _labels(pixels.reshape(height, width, -1))
    layers = np.zeros((found.shape[2], size_px[1], size_px[0]), dtype=np.uint16)
    layers[:, offset[1] : offset[1] + height, offset[0] : offset[0] + width] = np.moveaxis(found, 2, 0)
    return LabelMap(layers, _segments(keys, len(layers)))


def _refuse_other_files(path: Path) -> None:
    """An NRRD header may name another file of this machine for its pixels: a client could have any file read."""
    with path.open("rb") as stream:
        for line in stream:
            if _DATA_FILE.match(line.strip()):
                raise AnnotationError("the label map's pixels lie in another file; save it as one .nrrd file")
            if not line.strip():
                return


def _check_grid(size: Sequence[int], direction: Sequence[float], offset: Sequence[int], image: Sequence[int]) -> None:
    if len(size) < 2 or any(count != 1 for count in size[2:]):
        text = " x ".join(map(str, size))
        raise AnnotationError(f"expected a label map of one slice, but it has {text} voxels; submit one image's labels")
    known = any(offset)
    fits = all(at >= 0 and at + own <= whole for at, own, whole in zip(offset, size[:2], image, strict=True))
    if not (fits if known else tuple(size[:2]) == tuple(image)):
        where = f" from {tuple(offset)} on" if known else ""
        raise AnnotationError(
            f"the label map has {size[0]} x {size[1]} pixels{where}, but its image has {image[0]} x {image[1]}; export "
            "it on the grid of the image itself (in Slicer: with the image as the reference volume)"
        )
    axes = np.abs(np.reshape(direction, (len(size), len(size))))
    if not np.allclose(axes, np.eye(len(size)), atol=1e-3):
        raise AnnotationError(
            "the label map's axes are turned against those of its image; load the image anew, without a transform, and "
            "draw on that"
        )


def _labels(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    whole = np.issubdtype(pixels.dtype, np.integer)
    if not whole and np.issubdtype(pixels.dtype, np.floating):
        whole = bool(np.array_equal(pixels, np.rint(pixels)))
    if not whole or pixels.min() < 0 or pixels.max() > LARGEST:
        raise AnnotationError(
            f"expected whole numbers from 0 to {LARGEST} as labels, but the label map holds "
            f"{pixels.min():g} to {pixels.max():g} ({pixels.dtype}); submit a label map, not an image"
        )
    return pixels.astype(np.uint16)


def _offset(keys: dict[str, str]) -> tuple[int, int]:
    """Where Slicer's segmentation begins on its image: it may have been cut down to what was drawn."""
    numbers = re.findall(r"-?\d+", keys.get("Segmentation_ReferenceImageExtentOffset", "0 0 0"))
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 3 else (0, 0)


def _segments(keys: dict[str, str], layers: int) -> tuple[Segment, ...] | None:
    """The segments that the header of a ``.seg.nrrd`` lists."""
    found = []
    for key in sorted(keys):
        match = re.fullmatch(r"Segment(\d+)_LabelValue", key)
        if match is None:
            continue
        number = match[1]
        value, layer = keys[key], keys.get(f"Segment{number}_Layer", "0")
        if not (value.isdecimal() and layer.isdecimal() and int(layer) < layers):
            raise AnnotationError(
                f"segment {number} of the label map has the label value {value[:20]!r} in the layer {layer[:20]!r}, "
                f"but there are {layers}; save and submit it again"
            )
        found.append(Segment(keys.get(f"Segment{number}_Name", f"value {value}"), int(value), int(layer)))
    return tuple(found) or None
