# SPDX-License-Identifier: Apache-2.0
"""What all readers of nuclei need to know about files: which image belongs to a field, its size, whose slide it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError

PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
"""Images that Pillow opens and that record no micrometres per pixel."""
SLIDE_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")
"""Images that may be slides; they are opened by the slide reader."""
IMAGE_SUFFIXES = PLAIN_SUFFIXES + SLIDE_SUFFIXES

_TCGA_PATIENT = re.compile(r"(TCGA-(\w{2})-\w{4})(?=\W|_|$)", re.IGNORECASE)


def image_files(folder: Path) -> dict[str, Path]:
    """The images right inside a folder by their stem, in alphabetical order; a missing folder holds none.

    Raises:
        AnnotationError: Two images have the same stem.
    """
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise AnnotationError(
                f"{folder.name}: '{files[path.stem].name}' and '{path.name}' are two images of one name; "
                "rename or remove one of them"
            )
        files[path.stem] = path
    return files


def image_size_px(path: Path) -> tuple[int, int]:
    """Width and height of a plain image in pixels, from its header alone.

    Raises:
        AnnotationError: The file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise AnnotationError(f"{path.name}: the image is not there; check the path {path}") from error
    except (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError) as error:
        raise AnnotationError(f"{path.name}: not an image that can be read ({error}); copy it again") from error


def read_mat(path: Path) -> Mapping[str, npt.NDArray[np.float64]]:
    """The variables of a MATLAB file.

    Raises:
        AnnotationError: The file is missing or no MATLAB file.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise AnnotationError(f"{path.name}: the annotation is not there; check the path {path}")
    try:
        content: dict[str, npt.NDArray[np.float64]] = loadmat(path)
    except Exception as error:  # scipy raises many types on damaged files, zlib's and struct's among them
        raise AnnotationError(
            f"{path.name}: not a MATLAB file that can be read ({error}); copy it again, and save version 7.3 files as 7"
        ) from error
    return content


def mat_variable(content: Mapping[str, npt.NDArray[np.float64]], name: str, path: Path) -> npt.NDArray[np.float64]:
    """One variable of a MATLAB file.

    Raises:
        AnnotationError: It is not there.
    """
    if name not in content:
        found = sorted(key for key in content if not key.startswith("__"))
        raise AnnotationError(f"{path.name}: expected a variable '{name}', but found {found}")
    return content[name]


def tcga_origin(name: str) -> tuple[str | None, str | None]:
    """Patient (``TCGA-XX-XXXX``) and hospital (``XX``, TCGA's tissue source site) from a TCGA name, else None."""
    match = _TCGA_PATIENT.search(name)
    return (match[1].upper(), match[2].upper()) if match else (None, None)


def note_or_raise(error: AnnotationError, problems: list[str] | None) -> None:
    """Note the error where problems are collected, else raise it."""
    if problems is None:
        raise error
    problems.append(f"{error} (field left out)")


def check_names(fields: Iterable[NucleusField], where: str) -> None:
    """Raise AnnotationError where two fields have one name."""
    twice = sorted(name for name, count in Counter(field.name for field in fields).items() if count > 1)
    if twice:
        raise AnnotationError(f"{where}: the field names {twice} occur more than once; rename the images")
