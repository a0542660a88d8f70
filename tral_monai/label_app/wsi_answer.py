# SPDX-License-Identifier: Apache-2.0
"""The answers of inference on slides: ASAP XML for QuPath, JSON for DSA, and MONAI Label's own JSON."""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from tral_monai.annotations.text_file import write_text
from tral_monai.label_app.wsi_request import output_of
from tral_monai.label_app.wsi_result import WsiResult

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_WARNINGS = 1000  # DSA's client looks for the description in the last 5000 characters


def write_answer(result: WsiResult, output: Any, folder: Path) -> dict[str, Any]:
    """Write an answer as MONAI Label's endpoints take it.

    Args:
        result: what was found.
        output: ``asap``, ``dsa`` or ``json`` (also where it is None).
        folder: where the file of an answer goes, under a new name; the endpoint removes it once it is sent.

    Returns:
        ``file``, the path or None for JSON, and ``params``, plain data: all of the answer for JSON, else a summary.

    Raises:
        ConfigError: there is no such form of answers.
        OutputError: the file cannot be written.
    """
    form = output_of(output)
    if form == "json":
        started = time.perf_counter()
        params = json_answer(result)
        timed = result.written_in(time.perf_counter() - started)
        params["latencies"] = params["annotations"][0]["latencies"] = dict(timed.latencies)
        return {"file": None, "params": params}
    file = folder / f"{result.model}-{uuid.uuid4().hex}.{'xml' if form == 'asap' else 'json'}"
    started = time.perf_counter()
    (write_asap if form == "asap" else write_dsa)(file, result)
    return {"file": str(file), "params": summary(result.written_in(time.perf_counter() - started))}


def summary(result: WsiResult) -> dict[str, Any]:
    """What an answer tells besides its shapes, as plain data."""
    return {
        "name": _title(result),
        "description": result.description,
        "model": result.model,
        "location": list(result.region),
        "size": list(result.region[2:]),
        "label_names": result.shapes.values,
        "counts": result.shapes.counts(),
        "warnings": list(result.warnings),
        "latencies": dict(result.latencies),
    }


def json_answer(result: WsiResult) -> dict[str, Any]:
    """MONAI Label's JSON: contours by class, which CVAT's detector reads too.

    There is no ``prediction``: CVAT would show that, one box around the picture, in place of the contours.
    """
    contours: dict[str, list[list[list[int]]]] = {}
    for name, corners in result.rings():
        contours.setdefault(name, []).append(corners)
    annotation = {
        "location": list(result.region[:2]),
        "size": list(result.region[2:]),
        "elements": [{"label": name, "contours": of_class} for name, of_class in contours.items()],
        "labels": {name: list(result.shapes.colours[name]) for name in contours},
    }
    return {
        "annotations": [
            {
                "annotation": annotation,
                "label_names": result.shapes.values,
                "latencies": dict(result.latencies),
                "centroids": {},
            }
        ],
        **summary(result),
    }


def write_asap(path: Path, result: WsiResult) -> None:
    """Write ASAP XML as QuPath's extension reads it: one polygon per annotation, its name the class.

    Raises:
        OutputError: the file cannot be written.
    """
    x, y, width, height = result.region
    used: dict[str, str] = {}
    with write_text(path) as stream:
        stream.write('<?xml version="1.0"?>\n<ASAP_Annotations>\n')
        stream.write(
            f"  <Annotations Name={_quoted(_title(result))} Description={_quoted(result.description)} "
            f'Model={_quoted(result.model)} X="{x}" Y="{y}" W="{width}" H="{height}">\n'
        )
        heads: dict[str, str] = {}
        for name, corners in result.rings():
            if name not in heads:
                used[name] = "#{:02x}{:02x}{:02x}".format(*result.shapes.colours[name])
                quoted = _quoted(name)
                heads[name] = (
                    f'    <Annotation Name={quoted} Type="Polygon" PartOfGroup={quoted} Color="{used[name]}">\n'
                    "      <Coordinates>\n"
                )
            stream.write(heads[name])
            stream.writelines(
                f'        <Coordinate Order="{order}" X="{corner[0]}" Y="{corner[1]}" />\n'
                for order, corner in enumerate(corners)
            )
            stream.write("      </Coordinates>\n    </Annotation>\n")
        stream.write("  </Annotations>\n  <AnnotationGroups>\n")
        for name, colour in used.items():
            stream.write(
                f'    <Group Name={_quoted(name)} PartOfGroup="None" Color="{colour}">\n      <Attributes />\n'
                "    </Group>\n"
            )
        stream.write("  </AnnotationGroups>\n</ASAP_Annotations>\n")


def write_dsa(path: Path, result: WsiResult) -> None:
    """Write the JSON of a DSA annotation; its last line but one is the description, which DSA's client looks for.

    Raises:
        OutputError: the file cannot be written.
    """
    count = 0
    with write_text(path) as stream:
        stream.write(f'{{\n "name": {json.dumps(_title(result))},\n "elements": [\n')
        for name, corners in result.rings():
            element = {
                "group": name,
                "type": "polyline",
                "lineColor": "rgb({},{},{})".format(*result.shapes.colours[name]),
                "lineWidth": 2.0,
                "closed": True,
                "points": [[x, y, 0] for x, y in corners],
                "label": {"value": name},
            }
            stream.write((",\n  " if count else "  ") + json.dumps(element))
            count += 1
        told = summary(result)
        description = {
            "model": told["model"],
            "desc": told["description"],
            "location": told["location"],
            "size": told["size"],
            "count": count,
            "latencies": told["latencies"],
            "warnings": " ".join(told["warnings"])[:_LONGEST_WARNINGS],
        }
        stream.write(f' ],\n "description": {json.dumps(json.dumps(description))}\n}}')


def _title(result: WsiResult) -> str:
    return f"MONAILabel Annotations - {result.model} for {list(result.region)}"


def _quoted(text: str) -> str:
    """An XML attribute's value, in quotes; characters that XML cannot hold are replaced."""
    return quoteattr(_NOT_XML.sub("\ufffd", text))
