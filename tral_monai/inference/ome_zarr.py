# SPDX-License-Identifier: Apache-2.0
"""Grids of tiles as OME-Zarr: an image pyramid and a label pyramid (NGFF 0.4) that lie where the slide lies.

NGFF 0.4 in the Zarr format 2 is what napari, QuPath, Fiji and neuroglancer all read. Written with the zarr library 2.18
(the last for Python 3.10) or 3. Specification: https://ngff.openmicroscopy.org/0.4
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NGFF_VERSION = "0.4"
CHUNK_PX = 256
"""Side of a chunk, and the longest side of a pyramid's last level."""

_UNIT = "micrometer"


def mean_levels(image: npt.NDArray[np.floating[Any]]) -> Iterator[npt.NDArray[np.float32]]:
    """An image and its halves, each pixel the mean of those of its four that are known.

    Args:
        image: (rows, columns), NaN where nothing is known.

    Yields:
        float32 images, the first of full size, the last at most :data:`CHUNK_PX` wide and high; a pixel is NaN where
        all its four are, or lie outside.
    """
    level = np.asarray(image, dtype=np.float32)
    yield level
    while max(level.shape) > CHUNK_PX:
        quads = _quads(level, np.nan)
        known = ~np.isnan(quads)
        count = known.sum(axis=0)
        total = np.where(known, quads, 0).sum(axis=0, dtype=np.float32)
        level = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        yield level


def mode_levels(labels: npt.NDArray[np.uint8], *, never_hidden: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A label map and its halves, each pixel the most frequent value of its four, of equally frequent the largest.

    Args:
        labels: (rows, columns).
        never_hidden: a value that wins wherever one of the four has it.

    Yields:
        uint8 maps of the shapes that :func:`mean_levels` gives.
    """
    level = labels
    yield level
    while max(level.shape) > CHUNK_PX:
        a, b, c, d = np.sort(_quads(level, None), axis=0)
        level = np.where(c == d, d, np.where(b == c, c, np.where(a == b, a, d)))
        level[(a == never_hidden) | (b == never_hidden) | (c == never_hidden) | (d == never_hidden)] = never_hidden
        yield level


def _quads(level: npt.NDArray[Any], outside: float | None) -> npt.NDArray[Any]:
    """(4, rows / 2, columns / 2): the pixels that become one; beyond an odd border a value, or the border repeated."""
    odd = [(0, side % 2) for side in level.shape]
    padded = np.pad(level, odd, mode="edge") if outside is None else np.pad(level, odd, constant_values=outside)
    return np.stack([padded[::2, ::2], padded[::2, 1::2], padded[1::2, ::2], padded[1::2, 1::2]])


class OMEZarr:
    """An OME-Zarr being written: one image of several channels and the labels that belong to it.

    Coordinates are micrometres in the frame in which the slide's own first pixel has its centre at 0, as NGFF and
    napari have it for a slide opened with its mpp as scale: an image pixel that covers ``step`` slide pixels has its
    first centre at ``(step - 1) / 2`` of them, and so has every level.

    Args:
        folder: an empty folder, which becomes the image.
        name: of the image.
        step_level0: slide pixels per image pixel.
        mpp_xy: micrometres per slide pixel in x and y.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, name: str, step_level0: float, mpp_xy: tuple[float, float]
    ) -> None:
        self.name, self._step, self._mpp_yx = name, step_level0, (mpp_xy[1], mpp_xy[0])
        self._root = _open_group(folder)

    def write_image(
        self,
        channels: Iterable[npt.NDArray[np.floating[Any]]],
        *,
        names: Sequence[str],
        colours: Mapping[str, Sequence[int]],
        attributes: Mapping[str, Any],
    ) -> None:
        """Write the image, channel by channel, with its pyramid of means.

        Args:
            channels: one (rows, columns) array per channel, all of one shape, NaN where there is no value.
            names: of the channels.
            colours: of the channels by name, (r, g, b).
            attributes: more to keep with the image, as plain data.
        """
        arrays: list[Any] = []
        for index, channel in enumerate(channels):
            for level, pixels in enumerate(mean_levels(channel)):
                if index == 0:
                    arrays.append(_create_array(self._root, str(level), (len(names), *pixels.shape), "<f4", np.nan))
                arrays[level][index] = pixels
        axes = [{"name": "c", "type": "channel"}, *_space_axes()]
        self._root.attrs.update(
            {
                "multiscales": [self._multiscale(axes, len(arrays))],
                "omero": {
                    "version": NGFF_VERSION,
                    "name": self.name,
                    "channels": [
                        {
                            "label": name,
                            "color": "{:02X}{:02X}{:02X}".format(*colours[name]),
                            "active": True,
                            "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
                        }
                        for name in names
                    ],
                    "rdefs": {"model": "color"},
                },
                **attributes,
            }
        )

    def write_labels(
        self,
        labels: npt.NDArray[np.uint8],
        *,
        group: str,
        names: Sequence[str],
        colours: Mapping[str, Sequence[int]],
        transparent: int,
        never_hidden: int,
    ) -> None:
        """Write a label map that belongs to the image, with its pyramid.

        Args:
            labels: (rows, columns).
            group: name of the labels.
            names: name of every value, from 0.
            colours: of the values by name, (r, g, b).
            transparent: the value that is not drawn.
            never_hidden: see :func:`mode_levels`.
        """
        parent = self._root.require_group("labels")
        parent.attrs.update({"labels": [group]})
        target = parent.require_group(group)
        count = 0
        for level, values in enumerate(mode_levels(labels, never_hidden=never_hidden)):
            _create_array(target, str(level), values.shape, "|u1", 0)[:] = values
            count += 1
        target.attrs.update(
            {
                "multiscales": [self._multiscale(_space_axes(), count)],
                "image-label": {
                    "version": NGFF_VERSION,
                    "source": {"image": "../../"},
                    "colors": [
                        {"label-value": value, "rgba": [*colours[name], 0 if value == transparent else 255]}
                        for value, name in enumerate(names)
                    ],
                    "properties": [{"label-value": value, "name": name} for value, name in enumerate(names)],
                },
            }
        )

    def _multiscale(self, axes: list[dict[str, str]], levels: int) -> dict[str, Any]:
        others = len(axes) - 2
        datasets = []
        for level in range(levels):
            step = self._step * 2**level
            scale = [1.0] * others + [step * mpp for mpp in self._mpp_yx]
            first_centre = [0.0] * others + [(step - 1) / 2 * mpp for mpp in self._mpp_yx]
            datasets.append(
                {
                    "path": str(level),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": scale},
                        {"type": "translation", "translation": first_centre},
                    ],
                }
            )
        return {"version": NGFF_VERSION, "name": self.name, "axes": axes, "datasets": datasets}


def _space_axes() -> list[dict[str, str]]:
    return [{"name": name, "type": "space", "unit": _UNIT} for name in ("y", "x")]


def _is_zarr_3() -> bool:
    import zarr

    return int(zarr.__version__.split(".")[0]) >= 3


def _open_group(folder: str | os.PathLike[str]) -> Any:
    import zarr

    keywords: dict[str, Any] = {"zarr_format": 2} if _is_zarr_3() else {}
    return zarr.open_group(os.fspath(folder), mode="w", **keywords)


def _create_array(group: Any, name: str, shape: tuple[int, ...], dtype: str, fill: float) -> Any:
    from numcodecs import Blosc

    chunks = (1,) * (len(shape) - 2) + (CHUNK_PX, CHUNK_PX)
    compressor = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)
    common: dict[str, Any] = {"shape": shape, "chunks": chunks, "dtype": dtype, "fill_value": fill}
    if _is_zarr_3():
        keys = {"name": "v2", "separator": "/"}
        return group.create_array(name, **common, compressors=compressor, chunk_key_encoding=keys)
    return group.create_dataset(name, **common, compressor=compressor, dimension_separator="/")
