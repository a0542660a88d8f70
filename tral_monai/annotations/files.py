# SPDX-License-Identifier: Apache-2.0
"""Annotations from any file that the package can read: the content decides, not the suffix."""

from __future__ import annotations

import os
from pathlib import Path

from tral_monai.annotations.asap_xml import parse_asap_xml
from tral_monai.annotations.geojson import parse_geojson
from tral_monai.annotations.model import Annotation, ShapeProblem
from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError


def read_annotations(path: str | os.PathLike[str], *, problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Read QuPath GeoJSON or ASAP XML, plain or gzip.

    Geometry comes back exactly as it stands in the file, also where it crosses itself or leaves the slide:
    ``annotations.geometry.polygonal`` repairs it where an area is needed.

    Args:
        path: ``.geojson``, ``.json`` or ``.xml``, each also with ``.gz``.
        problems: where given, a shape that cannot be used (too few points, not a number) is noted here and left
            out instead of ending the reading; rings that were closed are noted too.

    Returns:
        The annotations in the order of the file.

    Raises:
        AnnotationError: the file cannot be read or is malformed (with line and column), or a shape cannot be used
            and ``problems`` is not given.
    """
    return parse_annotations(read_text(path), file=Path(path).name, problems=problems)


def parse_annotations(text: str, *, file: str = "text", problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Read QuPath GeoJSON or ASAP XML from its text, as :func:`read_annotations` does.

    Args:
        text: content of a file.
        file: what error messages call it.
        problems: as there.

    Raises:
        AnnotationError: as there.
    """
    start = text.lstrip()[:1]
    if start == "<":
        return parse_asap_xml(text, file=file, problems=problems)
    if start in ("{", "["):
        return parse_geojson(text, file=file, problems=problems)
    found = f"'{start}'" if start else "nothing"
    raise AnnotationError(f"{file}: expected QuPath GeoJSON or ASAP XML, but the file starts with {found}")
