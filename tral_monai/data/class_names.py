# SPDX-License-Identifier: Apache-2.0
"""The class names of a cohort's annotations, for those who have no class map."""

from __future__ import annotations

import logging

from tral_monai.annotations.class_map import ClassMap
from tral_monai.annotations.files import read_annotations
from tral_monai.annotations.model import Color
from tral_monai.data.cohort import Cohort
from tral_monai.errors import AnnotationError, CohortError

logger = logging.getLogger(__name__)


def identity_class_map(cohort: Cohort) -> ClassMap:
    """Every class name in a cohort's annotations as it stands, in alphabetical order, with its first colour there.

    Args:
        cohort: the cohort; a file that cannot be read is logged and left out.

    Raises:
        CohortError: no annotation has a class.
    """
    colors: dict[str, Color | None] = {}
    parts: dict[str, set[str | None]] = {}
    for row in cohort.rows:
        if row.annotations is not None:
            parts.setdefault(str(row.annotations), set()).add(row.part)
    for path, wanted in parts.items():
        try:
            annotations = read_annotations(path, problems=[])
        except AnnotationError as error:
            logger.warning("%s", error)
            continue
        for annotation in annotations:
            if annotation.class_name and (None in wanted or annotation.name in wanted):
                colors[annotation.class_name] = colors.get(annotation.class_name) or annotation.color
    if not colors:
        raise CohortError("no annotation of the cohort has a class; give the outlines classes in QuPath or ASAP")
    return ClassMap.identity(sorted(colors), colors={name: color for name, color in colors.items() if color})
