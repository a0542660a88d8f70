# SPDX-License-Identifier: Apache-2.0
"""Micrometres per pixel: what a file says, whether that can be true, and what to do when it says nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tral_monai.errors import MissingMppError, SlideOpenError

PLAUSIBLE_MPP = (0.05, 10.0)
"""A recorded value outside of this range is not a scanner's: 72 dpi, which graphics programs write, reads 353 um."""

MAX_ANISOTROPY = 0.02
"""x and y may differ by this much; both are then within 1 % of their mean, which is what the package works with."""

_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # TIFF tag ResolutionUnit: inch, centimetre
_UM_PER_OME_UNIT = {"µm": 1.0, "um": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def plausible(mpp_xy: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the pair if both values are a microscope's, else None."""
    low, high = PLAUSIBLE_MPP
    if mpp_xy is None or not all(math.isfinite(value) and low <= value <= high for value in mpp_xy):
        return None
    return mpp_xy


def _from_aperio(description: str) -> tuple[float, float] | None:
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", description)
    if not description.startswith("Aperio") or match is None:
        return None
    try:
        mpp = float(match[1])
    except ValueError:
        return None
    return mpp, mpp


def _from_ome(description: str) -> tuple[float, float] | None:
    if "<OME" not in description[:2000]:
        return None
    sizes = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', description)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', description)
        unit_um = _UM_PER_OME_UNIT.get(unit[1] if unit else "µm")
        if size is None or unit_um is None:
            return None
        sizes.append(float(size[1]) * unit_um)
    return sizes[0], sizes[1]


def _from_philips(description: str) -> tuple[float, float] | None:
    # Millimetres, rows (y) before columns (x); the first one is the full image's.
    quote = r"(?:&quot;|\")"
    spacing = rf'Name="DICOM_PIXEL_SPACING"[^>]*>\s*{quote}([0-9.eE+-]+){quote}\s+{quote}([0-9.eE+-]+){quote}'
    match = re.search(spacing, description)
    return (float(match[2]) * 1000, float(match[1]) * 1000) if match else None


def _from_resolution(
    x_resolution: tuple[int, int], y_resolution: tuple[int, int], unit: int
) -> tuple[float, float] | None:
    um_per_unit = _UM_PER_RESOLUTION_UNIT.get(unit)
    if um_per_unit is None or 0 in x_resolution or 0 in y_resolution:
        return None
    return um_per_unit * x_resolution[1] / x_resolution[0], um_per_unit * y_resolution[1] / y_resolution[0]


def mpp_from_tiff(description: str, tags: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the mpp that the first directory of a TIFF records.

    Args:
        description: ImageDescription tag: Aperio's text, OME-XML, Philips' XML, or anything else.
        tags: Values of XResolution, YResolution (numerator, denominator) and ResolutionUnit where present.

    Returns:
        (x, y) in micrometres per pixel from Aperio's `MPP`, OME's `PhysicalSizeX/Y` or Philips' pixel spacing, else
        the resolution tags where their unit is a length and the value a microscope's; None where none of them says it.
    """
    texts = (_from_aperio, _from_ome, _from_philips)
    found = next((value for value in (plausible(text(description)) for text in texts) if value is not None), None)
    if found is None and "XResolution" in tags and "YResolution" in tags:
        found = plausible(
            _from_resolution(tags["XResolution"], tags["YResolution"], int(tags.get("ResolutionUnit", 2)))
        )
    return found


def choose_mpp(path: Path, stored_xy: tuple[float, float] | None, given: float | None) -> tuple[float, float]:
    """Return the (x, y) micrometres per level-0 pixel to use: the given value, else the file's.

    Raises:
        MissingMppError: The file records none and none was given.
        SlideOpenError: The given value is not a positive length, or the file's x and y differ by more than 2 %.
    """
    if given is not None:
        if not (math.isfinite(given) and 0.01 <= given <= 100):
            raise SlideOpenError(
                f"{path.name}: mpp must be a positive number of micrometres per pixel between 0.01 and 100 "
                f"(0.25 for a 40x scan), got {given}"
            )
        return float(given), float(given)
    if stored_xy is None:
        raise MissingMppError(
            f"{path.name}: the file records no micrometres per pixel. Give the scanner's value, for example "
            "open_slide(path, mpp=0.25) for a 40x scan, or the column mpp of the cohort CSV"
        )
    if abs(stored_xy[0] - stored_xy[1]) > MAX_ANISOTROPY * min(stored_xy):
        raise SlideOpenError(
            f"{path.name}: pixels must be square within 2 %, but the file records {stored_xy[0]:.4f} x "
            f"{stored_xy[1]:.4f} um. If that is a mistake in the file, give mpp= (to a bundle: --mpp 0.25 and "
            "--override_mpp true); otherwise resample the slide first"
        )
    return stored_xy
