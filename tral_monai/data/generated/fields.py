# SPDX-License-Identifier: Apache-2.0
"""Generated fields of nuclei: H&E-like pictures with boxes of seven classes, made from a seed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tral_monai.atomic_file import atomic_path, remove_half_written
from tral_monai.data.generated.fields_layout import draw_kinds, plan_field
from tral_monai.data.generated.fields_nuclei import CLASSES
from tral_monai.data.generated.fields_render import RenderedField, render_field
from tral_monai.data.generated.hospitals import HOSPITALS, Hospital
from tral_monai.data.generated.render import Patient
from tral_monai.errors import ConfigError

FIELDS_VERSION = 1  # raise it whenever pixels or boxes change: finished data sets are then made again
MIN_FIELD_PX = 128
MPP_RANGE = (0.1, 1.0)
_STREAM = 104  # keeps these random numbers apart from those of the slides of the same seed


@dataclass(frozen=True)
class _FieldJob:
    number: int  # from 1, over all fields
    name: str
    kind: str
    patient: str
    patient_number: int
    hospital: Hospital


def generate_fields(
    folder: str | os.PathLike[str],
    *,
    n_fields: int = 60,
    field_px: int = 512,
    mpp: float = 0.25,
    seed: int = 0,
    hospitals: int = 2,
    patients: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make fields of nuclei with boxes of seven classes; the same arguments give the same pixels.

    Fields differ in how many nuclei they hold and, independently, in how many of these are plasma cells, mitoses,
    macrophages and others: some of the busiest fields are of little use to whoever looks for tumour cells, lymphocytes
    and stromal cells. A folder that already holds the very same fields is left as it is.

    Args:
        folder: Where to write ``annotations.json`` (COCO) and ``images/*.png``.
        n_fields: Fields in all, at least one for each patient.
        field_px: Edge of a field in pixels, at least 128.
        mpp: Micrometres per pixel, 0.1 to 1.
        seed: Any whole number from 0.
        hospitals: 1 or 2; they differ in stain and scanner.
        patients: Patients in all, one slide each, at least one for each hospital.
        progress: Called with (fields done, fields in all) after each field.

    Returns:
        Path of ``annotations.json``. Its images have the keys ``slide``, ``patient``, ``hospital`` and ``mpp`` beside
        those of COCO. Only nuclei of which 30 % or more lie in the field are annotated, with the box of what is seen.

    Raises:
        ConfigError: An argument is out of range.
    """
    _check(n_fields, field_px, mpp, seed, hospitals, patients)
    root = Path(folder)
    record: dict[str, object] = {
        "fields_version": FIELDS_VERSION,
        "n_fields": n_fields,
        "field_px": field_px,
        "mpp": mpp,
        "seed": seed,
        "hospitals": hospitals,
        "patients": patients,
    }
    jobs = _jobs(seed, n_fields, hospitals, patients)
    annotations, record_file = root / "annotations.json", root / "generated.json"
    if _is_there(record_file, record, annotations, root, jobs):
        return annotations
    (root / "images").mkdir(parents=True, exist_ok=True)
    record_file.unlink(missing_ok=True)
    fields = []
    for job in jobs:
        field = _make_field(job, field_px=field_px, mpp=mpp, seed=seed)
        remove_half_written(root / "images", job.name)
        with atomic_path(root / "images" / f"{job.name}.png") as part:
            Image.fromarray(field.image).save(part, format="PNG", compress_level=1)
        fields.append(field)
        if progress is not None:
            progress(len(fields), len(jobs))
    with atomic_path(annotations) as part:
        part.write_text(json.dumps(_coco(jobs, fields, field_px, mpp)) + "\n", encoding="utf-8")
    with atomic_path(record_file) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return annotations


def _check(n_fields: int, field_px: int, mpp: float, seed: int, hospitals: int, patients: int) -> None:
    if not 1 <= hospitals <= len(HOSPITALS):
        raise ConfigError(f"hospitals must be 1 to {len(HOSPITALS)}, but is {hospitals}")
    if patients < hospitals:
        raise ConfigError(f"patients must be at least the number of hospitals ({hospitals}), but is {patients}")
    if n_fields < patients:
        raise ConfigError(f"n_fields must be at least the number of patients ({patients}), but is {n_fields}")
    if field_px < MIN_FIELD_PX:
        raise ConfigError(f"field_px must be at least {MIN_FIELD_PX} to hold a neighbourhood, but is {field_px}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        raise ConfigError(f"mpp must be {MPP_RANGE[0]} to {MPP_RANGE[1]} micrometres per pixel, but is {mpp}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, but is {seed}")


def _jobs(seed: int, n_fields: int, hospitals: int, patients: int) -> list[_FieldJob]:
    kinds = draw_kinds(np.random.default_rng([seed, _STREAM, 0]), n_fields)
    jobs = []
    for i, kind in enumerate(kinds):
        person = i % patients  # patients take turns, so every patient has fields of several kinds
        hospital = HOSPITALS[person % hospitals]
        patient = f"{hospital.name}-{person // hospitals + 1:02d}"
        jobs.append(_FieldJob(i + 1, f"{patient}_f{i // patients + 1:02d}", kind, patient, person, hospital))
    return jobs


def _make_field(job: _FieldJob, *, field_px: int, mpp: float, seed: int) -> RenderedField:
    patient = Patient.draw(np.random.default_rng([seed, _STREAM, 1, job.patient_number]))
    planning, rendering = np.random.default_rng([seed, _STREAM, 2, job.number]).spawn(2)
    plan = plan_field(planning, job.kind, size_px=field_px, mpp=mpp, nuclear_size=patient.nuclei)
    return render_field(rendering, plan, job.hospital, patient, seed=seed)


def _coco(jobs: list[_FieldJob], fields: list[RenderedField], field_px: int, mpp: float) -> dict[str, object]:
    category = {name: i + 1 for i, name in enumerate(CLASSES)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for job, field in zip(jobs, fields, strict=True):
        images.append(
            {
                "id": job.number,
                "file_name": f"images/{job.name}.png",
                "name": job.name,
                "width": field_px,
                "height": field_px,
                "mpp": mpp,
                "slide": f"{job.patient}-S1",
                "patient": job.patient,
                "hospital": job.hospital.name,
            }
        )
        for box, area, name in zip(field.boxes_px.tolist(), field.areas_px.tolist(), field.class_names, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": job.number,
                    "category_id": category[name],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": area,
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": "Generated fields of nuclei: drawings, not photographs of tissue"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in category.items()],
    }


def _is_there(
    record_file: Path, record: dict[str, object], annotations: Path, root: Path, jobs: list[_FieldJob]
) -> bool:
    """Whether the folder holds these very fields; the record is written last, so a killed run does not count."""
    if not record_file.is_file() or not annotations.is_file():
        return False
    try:
        same = json.loads(record_file.read_text(encoding="utf-8")) == record
    except ValueError:
        return False
    return same and all((root / "images" / f"{job.name}.png").is_file() for job in jobs)
