# SPDX-License-Identifier: Apache-2.0
"""Data sets of nuclei by name: one reader for all, and the classes that count as known in each open-set setting."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import cast

from tral_monai.annotations.nuclei import consep, crchistophenotypes, nucls
from tral_monai.annotations.nuclei.consep import ConsepLevel, read_consep
from tral_monai.annotations.nuclei.crchistophenotypes import read_crchistophenotypes
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.annotations.nuclei.nucls import read_nucls
from tral_monai.annotations.nuclei.nucls_classes import NuclsLevel
from tral_monai.errors import AnnotationError, ConfigError

DATASETS = ("nucls", "consep", "crchistophenotypes", "coco", "qupath", "generated")
"""Names that :func:`read_fields` takes."""

OPEN_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "nucls": {  # OSAL-ND, Table 1
        "5+2": ("Tum", "Lym", "Str", "Pla", "Mit"),
        "4+3": ("Tum", "Lym", "Str", "Pla"),
        "3+4": ("Tum", "Lym", "Str"),
    },
    "consep": {
        "5+2": ("inflammatory", "healthy_epithelial", "malignant_epithelial", "fibroblast", "muscle"),
        "4+3": ("inflammatory", "healthy_epithelial", "malignant_epithelial", "fibroblast"),
        "3+4": ("inflammatory", "malignant_epithelial", "fibroblast"),
        "2+5": ("malignant_epithelial", "healthy_epithelial"),  # two thirds of the nuclei are unknown
    },
    "crchistophenotypes": {
        "3+1": ("epithelial", "inflammatory", "fibroblast"),
        "2+2": ("epithelial", "inflammatory"),
        "1+3": ("epithelial",),
    },
    "generated": {
        "5+2": ("tumor", "lymphocyte", "stromal", "plasma", "mitotic"),
        "4+3": ("tumor", "lymphocyte", "stromal", "plasma"),
        "3+4": ("tumor", "lymphocyte", "stromal"),
    },
}
"""Known classes by data set (at its default class level) and setting; a setting is called <known>+<unknown>."""

_LEVELS = {"nucls": ("paper", "raw", "main", "super"), "consep": ("original", "merged")}


def known_classes(dataset: str, setting: str) -> tuple[str, ...]:
    """The known classes of a named setting, in the detector's order.

    Raises:
        ConfigError: An unknown data set or setting, or a data set whose classes are the user's own.
    """
    _check_name(dataset)
    if dataset not in OPEN_SETS:
        raise ConfigError(
            f"'{dataset}' has classes of your own, so that no open-set setting '{setting}' is defined for it; "
            "list the known classes instead"
        )
    if setting not in OPEN_SETS[dataset]:
        raise ConfigError(
            f"open_set of '{dataset}' must be one of {', '.join(OPEN_SETS[dataset])}, but is '{setting}'; "
            "or list the known classes"
        )
    return OPEN_SETS[dataset][setting]


def read_fields(
    dataset: str,
    dataset_dir: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    class_level: str | None = None,
    box_um: float | None = None,
    problems: list[str] | None = None,
) -> list[NucleusField]:
    """Read the annotated fields of a data set.

    Args:
        dataset: One of :data:`DATASETS`.
        dataset_dir: Its folder; for ``coco`` the JSON file will do.
        mpp: Micrometres per pixel; overrides the data set's. ``coco`` and ``qupath`` need it where no file records it.
        class_level: ``nucls``: paper, raw, main or super. ``consep``: original or merged. None is the first of them.
        box_um: Side of the boxes around centres, micrometres; ``crchistophenotypes`` only.
        problems: Where given, a field that cannot be read is noted here, by name, and left out. What was repaired in a
            field that was read stands in its own ``problems``.

    Raises:
        ConfigError: An unknown name, a setting that this data set has not, or one out of range.
        AnnotationError: The folder is missing, is not laid out as expected, holds no field that can be read, or two
            fields have one name; or a field cannot be read while ``problems`` is not given.
    """
    _check_name(dataset)
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise ConfigError(f"mpp must be a positive number of micrometres per pixel, but is {mpp}")
    levels = _LEVELS.get(dataset, ())
    if class_level is not None and class_level not in levels:
        allowed = f"one of {', '.join(levels)}" if levels else "left out (its classes have one level only)"
        raise ConfigError(f"class_level of '{dataset}' must be {allowed}, but is '{class_level}'")
    if box_um is not None and dataset != "crchistophenotypes":
        raise ConfigError(
            f"box_um is the size of boxes around centres, but '{dataset}' has boxes of its own; leave it out"
        )
    root = Path(dataset_dir)
    if not root.exists():
        raise AnnotationError(f"there is no folder '{root.name}' of the data set '{dataset}'; check the path {root}")
    if root.is_file() and dataset not in ("coco", "generated"):
        raise AnnotationError(f"'{root.name}' is a file, but the data set '{dataset}' is a folder; give the folder")
    noted: list[str] = [] if problems is None else problems
    before = len(noted)
    collect = None if problems is None else noted
    fields = _read(dataset, root, mpp, class_level, box_um, collect)
    if not fields:
        why = f" ({'; '.join(noted[before:][:3])})" if len(noted) > before else ""
        raise AnnotationError(
            f"{root.name}: no field of the data set '{dataset}' could be read{why}; check that the images are there"
        )
    return fields


def _read(
    dataset: str,
    root: Path,
    mpp: float | None,
    class_level: str | None,
    box_um: float | None,
    problems: list[str] | None,
) -> list[NucleusField]:
    if dataset == "nucls":
        level = cast(NuclsLevel, class_level or "paper")
        return read_nucls(root, class_level=level, mpp=nucls.MPP if mpp is None else mpp, problems=problems)
    if dataset == "consep":
        consep_level = cast(ConsepLevel, class_level or "original")
        return read_consep(root, class_level=consep_level, mpp=consep.MPP if mpp is None else mpp, problems=problems)
    if dataset == "crchistophenotypes":
        return read_crchistophenotypes(
            root,
            box_um=crchistophenotypes.BOX_UM if box_um is None else box_um,
            mpp=crchistophenotypes.MPP if mpp is None else mpp,
            problems=problems,
        )
    if dataset == "qupath":
        from tral_monai.annotations.nuclei.qupath import read_qupath  # shapely is needed for this one only

        return read_qupath(root, mpp=mpp, problems=problems)
    from tral_monai.annotations.nuclei.coco import read_coco

    return read_coco(root, mpp=mpp, problems=problems)


def _check_name(dataset: str) -> None:
    if dataset not in DATASETS:
        raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, but is '{dataset}'")
