# SPDX-License-Identifier: Apache-2.0
"""CoNSeP (colorectal adenocarcinoma, Graham et al. 2019): pictures and MATLAB files with an instance map.

Layouts: the release's ``Train/Images``, ``Train/Labels``, ``Test/Images``, ``Test/Labels`` (one of them is enough),
or ``images`` and ``labels``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.nuclei.boxes import IGNORED_CLASS, fit_boxes, unnamed_class_problem
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

MPP = 0.25
"""Micrometres per pixel (40x)."""

CLASSES = {
    1: "other",
    2: "inflammatory",
    3: "healthy_epithelial",
    4: "malignant_epithelial",
    5: "fibroblast",
    6: "muscle",
    7: "endothelial",
}
"""Class ids of the release."""

MERGED = {
    1: "other", 2: "inflammatory", 3: "epithelial", 4: "epithelial", 5: "spindle", 6: "spindle", 7: "spindle"
}  # fmt: skip
"""The four classes of the HoVer-Net paper."""

ConsepLevel = Literal["original", "merged"]


def read_consep(
    folder: str | os.PathLike[str],
    *,
    class_level: ConsepLevel = "original",
    mpp: float = MPP,
    problems: list[str] | None = None,
) -> list[NucleusField]:
    """Read CoNSeP.

    Args:
        folder: Folder of one of the layouts.
        class_level: ``original`` keeps the seven classes, ``merged`` joins them to the paper's four.
        mpp: Micrometres per pixel.
        problems: Where given, a field that cannot be read is noted here and left out.

    Raises:
        AnnotationError: No layout is there, or a field cannot be read while ``problems`` is not given.
        ConfigError: An unknown level.
    """
    if class_level not in ("original", "merged"):
        raise ConfigError(f"class_level of CoNSeP must be 'original' or 'merged', but is '{class_level}'")
    root = Path(folder)
    names = CLASSES if class_level == "original" else MERGED
    fields = []
    for images, labels in _pairs(root):
        for stem, image in image_files(images).items():
            try:
                fields.append(_field(image, labels / f"{stem}.mat", names, mpp))
            except AnnotationError as error:
                note_or_raise(error, problems)
    check_names(fields, root.name)
    return fields


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    tries = [root / "Train", root / "Test", root / "train", root / "test", root]
    found = []
    for place in tries:
        here = {path.name: path for path in place.iterdir() if path.is_dir()} if place.is_dir() else {}
        for images, labels in (("Images", "Labels"), ("images", "labels")):
            if images in here and labels in here:
                found.append((here[images].resolve(), here[labels].resolve()))
    if not found:
        raise AnnotationError(
            f"{root.name}: expected CoNSeP's folders Train/Images and Train/Labels, or images and labels; "
            f"check the path {root}"
        )
    return list(dict.fromkeys(found))  # once each, where the file system does not tell Train from train


def _field(image: Path, mat: Path, names: dict[int, str], mpp: float) -> NucleusField:
    width, height = image_size_px(image)
    content = read_mat(mat)
    instances = mat_variable(content, "inst_map", mat).astype(np.int64)
    if instances.shape != (height, width):
        found = " x ".join(str(size) for size in instances.shape[::-1])
        raise AnnotationError(f"{mat.name}: inst_map is {found} px, but {image.name} is {width} x {height} px")
    ids, boxes = instance_boxes(instances)
    class_ids = _class_ids(content, mat, instances, ids)
    unmapped = Counter(str(class_id) for class_id in class_ids if class_id not in names)
    classes = [names.get(class_id, IGNORED_CLASS) for class_id in class_ids]
    ignored = [class_id not in names for class_id in class_ids]
    fitted = fit_boxes(boxes, classes, ignored, name=image.stem, area_px=(0, 0, width, height))
    expected = [f"{class_id} ({name})" for class_id, name in names.items()]
    return NucleusField(
        name=image.stem,
        image=image,
        width_px=width,
        height_px=height,
        mpp=mpp,
        boxes_px=fitted.boxes_px,
        classes=fitted.classes,
        ignored=fitted.ignored,
        problems=(*unnamed_class_problem(image.stem, unmapped, expected), *fitted.problems),
    )


def instance_boxes(instances: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids of the instances, ascending, and their (n, 4) boxes.

    Args:
        instances: (height, width) map; 0 and less is background.
    """
    rows, columns = np.nonzero(instances > 0)
    ids, nucleus = np.unique(instances[rows, columns], return_inverse=True)
    low = np.full((len(ids), 2), np.iinfo(np.int64).max)
    high = np.full((len(ids), 2), -1)
    at = np.stack([columns, rows], axis=1)
    np.minimum.at(low, nucleus, at)
    np.maximum.at(high, nucleus, at)
    return ids, np.concatenate([low, high + 1], axis=1)


def _class_ids(
    content: Mapping[str, npt.NDArray[np.float64]],
    mat: Path,
    instances: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
) -> list[int]:
    """Class of each instance: ``inst_type`` (in ascending order of the ids), else the commonest in ``type_map``."""
    if "inst_type" in content and content["inst_type"].size == len(ids):
        return [int(class_id) for class_id in content["inst_type"].ravel()]
    if "type_map" not in content:
        found = f"{content['inst_type'].size} values in inst_type" if "inst_type" in content else "no inst_type"
        raise AnnotationError(
            f"{mat.name}: expected one class for each of the {len(ids)} nuclei of inst_map, but found {found} and no "
            "type_map; add one of them"
        )
    types = content["type_map"].astype(np.int64)
    if types.shape != instances.shape:
        raise AnnotationError(f"{mat.name}: type_map is {types.shape}, but inst_map is {instances.shape}")
    inside = instances > 0
    votes = np.zeros((len(ids), int(types.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(votes, (np.searchsorted(ids, instances[inside]), np.maximum(types[inside], 0)), 1)
    return [int(class_id) for class_id in votes.argmax(axis=1)]
