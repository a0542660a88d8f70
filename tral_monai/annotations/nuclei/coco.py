# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON of boxes, read and written.

Beside COCO's own keys, an image may have ``slide``, ``patient``, ``hospital``, ``mpp``, ``name`` (of the field; else
its file name without suffix) and ``annotated_px`` (xmin, ymin, xmax, ymax of the part that was annotated; else all).
A crowd (``iscrowd`` 1) is ignored, as is every nucleus of a category called ``ignored``.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tral_monai.annotations.nuclei.boxes import IGNORED_CLASS, fit_boxes, unnamed_class_problem
from tral_monai.annotations.nuclei.files import check_names, image_size_px, note_or_raise
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.annotations.text_file import read_text, write_text
from tral_monai.errors import AnnotationError

Json = dict[str, Any]
_ORIGIN = ("slide", "patient", "hospital")


def read_coco(
    path: str | os.PathLike[str], *, mpp: float | None = None, problems: list[str] | None = None
) -> list[NucleusField]:
    """Read a COCO file.

    Args:
        path: The JSON, or a folder with ``annotations.json`` or with one JSON only. Images are looked for beside it and
            in ``images`` beside it.
        mpp: Micrometres per pixel; overrides what the images record.
        problems: Where given, a field that cannot be read is noted here and left out.

    Raises:
        AnnotationError: The file is no COCO file, or a field cannot be read while ``problems`` is not given.
    """
    file = _json_file(Path(path))
    content = _parse(file)
    names = {}
    for category in content["categories"]:
        names[_key(category, "id", file, "a category")] = str(_key(category, "name", file, "a category"))
    by_image: dict[Any, list[Json]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[_key(annotation, "image_id", file, "an annotation")].append(annotation)
    fields = []
    ids = [_key(image, "id", file, "an image") for image in content["images"]]
    if len(set(ids)) < len(ids):
        raise AnnotationError(f"{file.name}: two images have one id; number the images anew")
    for id_, image in zip(ids, content["images"], strict=True):
        try:
            fields.append(_field(image, by_image.pop(id_, []), names, file, mpp))
        except AnnotationError as error:
            note_or_raise(error, problems)
    if by_image:
        count = sum(map(len, by_image.values()))
        unlisted = f"{count} annotations belong to images that are not listed: {list(by_image)[:5]}"
        note_or_raise(AnnotationError(f"{file.name}: {unlisted}"), problems)
    check_names(fields, file.name)
    return fields


def write_coco(fields: Iterable[NucleusField], path: str | os.PathLike[str]) -> None:
    """Write fields as COCO, so that :func:`read_coco` gives them back.

    Image names are written relative to the JSON's folder.

    Args:
        fields: What to write; each has an image.
        path: JSON to write, replaced only once it is whole.

    Raises:
        AnnotationError: A field has no image, or two have one name.
        OutputError: The file cannot be written.
    """
    fields = list(fields)
    target = Path(path)
    check_names(fields, target.name)
    numbers: dict[str, int] = {}
    images: list[Json] = []
    annotations: list[Json] = []
    for image_id, field in enumerate(fields, start=1):
        if field.image is None:
            raise AnnotationError(f"{field.name}: COCO needs the image of a field, but it has none")
        whole = image_size_px(field.image) if field.image.is_file() else (field.width_px, field.height_px)
        area = [field.left_px, field.top_px, field.left_px + field.width_px, field.top_px + field.height_px]
        image: Json = {
            "id": image_id,
            "file_name": Path(os.path.relpath(field.image, target.parent)).as_posix(),
            "width": whole[0],
            "height": whole[1],
            "name": field.name,
            "mpp": field.mpp,
            **{key: getattr(field, key) for key in _ORIGIN if getattr(field, key) is not None},
        }
        if area != [0, 0, *whole]:
            image["annotated_px"] = area
        images.append(image)
        offset = np.array([field.left_px, field.top_px, field.left_px, field.top_px])
        boxes = (field.boxes_px.astype(np.float64) + offset).tolist()
        for box, class_name, ignored in zip(boxes, field.classes, field.ignored.tolist(), strict=True):
            left, top, right, bottom = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": numbers.setdefault(class_name, len(numbers) + 1),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(ignored),
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    with write_text(target) as stream:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, stream)


def _json_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / "annotations.json").is_file():
        return path / "annotations.json"
    found = sorted(path.glob("*.json"))
    if len(found) != 1:
        raise AnnotationError(
            f"{path.name}: expected annotations.json or one JSON file, but found {[file.name for file in found]}; "
            "give the path of the COCO file itself"
        )
    return found[0]


def _parse(file: Path) -> dict[str, list[Json]]:
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{file.name}, line {error.lineno}: not valid JSON ({error.msg}); export it again"
        ) from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise AnnotationError(
            f"{file.name}: expected COCO's lists images, annotations and categories, but found {found}"
        )
    return content


def _key(entry: Json, key: str, file: Path, what: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise AnnotationError(f"{file.name}: expected {what} to have '{key}', but found {str(entry)[:80]}")
    return entry[key]


def _field(
    image: Json, annotations: list[Json], names: Mapping[Any, str], file: Path, mpp: float | None
) -> NucleusField:
    file_name = str(_key(image, "file_name", file, "an image")).replace("\\", "/")
    path = next((p for p in (file.parent / file_name, file.parent / "images" / file_name) if p.is_file()), None)
    if path is None:
        raise AnnotationError(
            f"{file_name}: the image is neither beside {file.name} nor in images beside it; copy it there"
        )
    name = str(image.get("name") or PurePosixPath(file_name).with_suffix(""))
    size = image_size_px(path)
    stated = (image.get("width", size[0]), image.get("height", size[1]))
    if stated != size:
        raise AnnotationError(
            f"{file_name}: the image is {size[0]} x {size[1]} px, but {file.name} says {stated[0]} x {stated[1]}; "
            "the boxes belong to another version of it"
        )
    chosen = mpp if mpp is not None else image.get("mpp")
    if not isinstance(chosen, (int, float)) or not 0 < chosen < float("inf"):
        raise AnnotationError(
            f"{file_name}: {file.name} records no micrometres per pixel (mpp is {chosen!r}); "
            "give mpp=, for example 0.25 at 40x"
        )
    boxes, classes, ignored = [], [], []
    unmapped: dict[str, int] = defaultdict(int)
    shapeless = 0
    for annotation in annotations:
        box = _box(annotation)
        if box is None:
            shapeless += 1
            continue
        category = _key(annotation, "category_id", file, "an annotation")
        class_name = names.get(category, IGNORED_CLASS)
        if category not in names:
            unmapped[str(category)] += 1
        boxes.append(box)
        classes.append(class_name)
        ignored.append(bool(annotation.get("iscrowd", 0)) or class_name == IGNORED_CLASS)
    area = _area_px(image, size, file_name)
    fitted = fit_boxes(boxes, classes, ignored, name=name, area_px=area)
    noted = [f"{name}: annotations without a box or polygon left out: {shapeless}"] if shapeless else []
    expected = [f"{id_} ({category_name})" for id_, category_name in names.items()]
    return NucleusField(
        name=name,
        image=path,
        width_px=area[2] - area[0],
        height_px=area[3] - area[1],
        mpp=float(chosen),
        boxes_px=fitted.boxes_px,
        classes=fitted.classes,
        ignored=fitted.ignored,
        left_px=area[0],
        top_px=area[1],
        **{key: str(image[key]) for key in _ORIGIN if image.get(key) not in (None, "")},
        problems=(*noted, *unnamed_class_problem(name, unmapped, expected), *fitted.problems),
    )


def _box(annotation: Json) -> list[float] | None:
    """xmin, ymin, xmax, ymax of the box, or around the polygons where there is none."""
    try:
        box = [float(side) for side in annotation.get("bbox") or ()]
        if len(box) == 4:
            return [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        rings = annotation.get("segmentation") or ()
        points = np.concatenate([np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings])
        return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    except (TypeError, ValueError):  # no numbers, a run-length mask, or no polygon at all
        return None


def _area_px(image: Json, size: tuple[int, int], file_name: str) -> tuple[int, int, int, int]:
    area = image.get("annotated_px")
    if area is None:
        return 0, 0, *size
    whole = isinstance(area, list) and len(area) == 4 and all(isinstance(side, int) for side in area)
    if not whole or not (0 <= area[0] < area[2] <= size[0] and 0 <= area[1] < area[3] <= size[1]):
        raise AnnotationError(
            f"{file_name}: annotated_px must be whole numbers xmin, ymin, xmax, ymax inside of {size[0]} x {size[1]} "
            f"px, but is {area}"
        )
    return area[0], area[1], area[2], area[3]
