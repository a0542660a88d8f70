# SPDX-License-Identifier: Apache-2.0
"""The one in-memory form of an annotated field of nuclei, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tral_monai.errors import AnnotationError


@dataclass(frozen=True, eq=False, kw_only=True)
class NucleusField:
    """One field (an image, or a region of a slide) with the nuclei that were annotated in it.

    Args:
        name: Name of the field, unique in its data set.
        image: Image file, or None where only the annotations are there.
        width_px: Width of the annotated area in pixels of the image.
        height_px: Height of it.
        mpp: Micrometres per pixel of the image.
        boxes_px: (n, 4) xmin, ymin, xmax, ymax in pixels of the annotated area, float32; the maximum is exclusive.
        classes: (n,) class name of each nucleus, in the names of the data set.
        ignored: (n,) bool: the nucleus is there, but nobody could say what it is (NuCLS's AMBIGUOUS).
        left_px: Column of the annotated area's left edge in the image; more than 0 for a region of a slide.
        top_px: Row of its upper edge.
        slide: Name of the slide, None where unknown; so are patient and hospital.
        patient: Name of the patient.
        hospital: Name of the hospital.
        problems: What was left out or repaired while the field was read, one sentence each.

    Raises:
        AnnotationError: The columns differ in length, or a box has no finite numbers.
    """

    name: str
    image: Path | None
    width_px: int
    height_px: int
    mpp: float
    boxes_px: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    ignored: npt.NDArray[np.bool_]
    left_px: int = 0
    top_px: int = 0
    slide: str | None = None
    patient: str | None = None
    hospital: str | None = None
    problems: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes_px, dtype=np.float32).reshape(-1, 4)
        ignored = np.asarray(self.ignored, dtype=np.bool_).reshape(-1)
        object.__setattr__(self, "boxes_px", boxes)
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        object.__setattr__(self, "ignored", ignored)
        if not len(boxes) == len(self.classes) == len(ignored):
            raise AnnotationError(
                f"{self.name}: {len(boxes)} boxes, {len(self.classes)} classes and {len(ignored)} ignore flags; "
                "give one of each per nucleus"
            )
        if not np.isfinite(boxes).all():
            raise AnnotationError(f"{self.name}: a box holds NaN or infinity; correct or leave out that nucleus")

    def __len__(self) -> int:
        return len(self.boxes_px)
