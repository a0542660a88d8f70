# SPDX-License-Identifier: Apache-2.0
"""CRCHistoPhenotypes (colorectal adenocarcinoma, Sirinukunwattana et al. 2016): nucleus centres in MATLAB files.

Layouts: the release's ``img1/img1.bmp`` with ``img1/img1_epithelial.mat``, ..., right in the folder or in its folders
``Classification`` and ``Detection``; or ``images/img1.jpg`` with ``points/img1_epithelial.mat``, ....

A centre becomes a square box, because a detector needs boxes; its size is a choice, not an annotation.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.nuclei.boxes import IGNORED_CLASS, fit_boxes
from tral_monai.annotations.nuclei.files import (
    check_names,
    image_files,
    image_size_px,
    mat_variable,
    note_or_raise,
    read_mat,
)
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError, ConfigError

MPP = 0.55
"""Micrometres per pixel (20x)."""
BOX_UM = 8.0
"""Side of the square around a centre: about a nucleus of these pictures (15 px)."""

CLASSES = {"epithelial": "epithelial", "inflammatory": "inflammatory", "fibroblast": "fibroblast", "others": "other"}
"""Part of the file name: class."""


def read_crchistophenotypes(
    folder: str | os.PathLike[str],
    *,
    box_um: float = BOX_UM,
    mpp: float = MPP,
    problems: list[str] | None = None,
) -> list[NucleusField]:
    """Read CRCHistoPhenotypes. A nucleus of the detection list to which no class was given is ignored.

    Args:
        folder: Folder of one of the layouts.
        box_um: Side of the square box around each centre, micrometres.
        mpp: Micrometres per pixel.
        problems: Where given, a field that cannot be read is noted here and left out.

    Raises:
        AnnotationError: No layout is there, or a field cannot be read while ``problems`` is not given.
        ConfigError: ``box_um`` is not a positive length.
    """
    if not 0 < box_um < float("inf"):
        raise ConfigError(f"box_um must be a positive length in micrometres, but is {box_um}")
    root = Path(folder)
    fields = []
    for stem, (image, places) in _fields_of(root).items():
        try:
            fields.append(_field(stem, image, places, box_um, mpp))
        except AnnotationError as error:
            note_or_raise(error, problems)
    check_names(fields, root.name)
    return fields


def _fields_of(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Image of each field, and the folders where its lists may be."""
    if (root / "images").is_dir() and (root / "points").is_dir():
        return {stem: (image, [root / "points"]) for stem, image in image_files(root / "images").items()}
    places = [place for place in (root / "Classification", root / "Detection", root) if place.is_dir()]
    fields: dict[str, tuple[Path, list[Path]]] = {}
    for place in places:
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            image = image_files(folder).get(folder.name)
            if image is not None:
                fields.setdefault(folder.name, (image, []))[1].append(folder)
    if not fields:
        raise AnnotationError(
            f"{root.name}: expected the folders images and points, or img1/img1.bmp, img2/img2.bmp, ...; "
            f"check the path {root}"
        )
    return fields


def _field(stem: str, image: Path, places: list[Path], box_um: float, mpp: float) -> NucleusField:
    width, height = image_size_px(image)
    lists: list[npt.NDArray[np.float64]] = []
    classes: list[str] = []
    for part, class_name in CLASSES.items():
        points = _points(stem, part, places)
        if points is None:
            raise AnnotationError(
                f"{stem}: expected the list {stem}_{part}.mat in {' or '.join(place.name for place in places)}, but it "
                "is not there; a class without nuclei has an empty list"
            )
        lists.append(points)
        classes += [class_name] * len(points)
    classed = np.concatenate(lists)
    detected = _points(stem, "detection", places)
    unclassed = _without(detected, classed, box_um / mpp / 2) if detected is not None else np.empty((0, 2))
    classes += [IGNORED_CLASS] * len(unclassed)
    centres = np.concatenate([classed, unclassed])
    half = box_um / mpp / 2
    fitted = fit_boxes(
        np.concatenate([centres - half, centres + half], axis=1),
        classes,
        [class_name == IGNORED_CLASS for class_name in classes],
        name=stem,
        area_px=(0, 0, width, height),
        cut_is_expected=True,  # squares at the edge
    )
    beyond = int(((centres < 0) | (centres >= [width, height])).any(axis=1).sum())
    noted = (f"{stem}: centres outside the picture of {width} x {height} px: {beyond}",) if beyond else ()
    return NucleusField(
        name=stem,
        image=image,
        width_px=width,
        height_px=height,
        mpp=mpp,
        boxes_px=fitted.boxes_px,
        classes=fitted.classes,
        ignored=fitted.ignored,
        problems=(*noted, *fitted.problems),
    )


def _points(stem: str, part: str, places: list[Path]) -> npt.NDArray[np.float64] | None:
    file = next((place / f"{stem}_{part}.mat" for place in places if (place / f"{stem}_{part}.mat").is_file()), None)
    if file is None:
        return None
    points = mat_variable(read_mat(file), "detection", file)
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise AnnotationError(f"{file.name}: expected one row (x, y) per nucleus, but found an array {points.shape}")
    return points.astype(np.float64)


def _without(
    detected: npt.NDArray[np.float64], classed: npt.NDArray[np.float64], radius_px: float
) -> npt.NDArray[np.float64]:
    """The detected points that are none of the classed ones.

    Nearly all classed points stand in the detection list number by number; a few were moved, so that each classed point
    takes away the nearest detected one within the radius, the closest pairs first.
    """
    from scipy.spatial.distance import cdist

    distance = cdist(detected, classed)
    pairs = np.argwhere(distance <= radius_px)
    order = np.argsort(distance[tuple(pairs.T)], kind="stable")
    free = np.ones(len(detected), dtype=np.bool_)
    open_ = np.ones(len(classed), dtype=np.bool_)
    for row, column in pairs[order]:
        if free[row] and open_[column]:
            free[row] = open_[column] = False
    return detected[free]
