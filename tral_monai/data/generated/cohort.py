# SPDX-License-Identifier: Apache-2.0
"""The generated cohort: slides of two hospitals with annotations, made from a seed for people without data."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tral_monai.annotations.geojson import write_geojson
from tral_monai.annotations.model import Annotation
from tral_monai.atomic_file import atomic_path, remove_half_written
from tral_monai.data.generated.hospitals import HOSPITALS, Hospital
from tral_monai.data.generated.layout import Plan, plan_slide
from tral_monai.data.generated.outlines import outline_regions
from tral_monai.data.generated.render import BLOCK_PX, Patient, SlideRenderer
from tral_monai.data.generated.textures import texture_bank
from tral_monai.data.generated.writer import write_pyramid
from tral_monai.errors import ConfigError

GENERATOR_VERSION = 2  # raise it whenever the pixels or outlines change: finished cohorts are then made again
MIN_SIZE_PX = 1536
_TRIES = 80


@dataclass(frozen=True)
class Preset:
    """Size of a cohort.

    Attributes:
        slides_per_hospital: Slides, and patients, of each hospital.
        size_px: Edge of the slides at level 0, in pixels.
        tiles_per_class: Area outlined on each slide, in tiles of 128 px at 40x.
        least_tiles: Whole tiles that each class must have on each slide.
    """

    slides_per_hospital: int
    size_px: int
    tiles_per_class: dict[str, float]
    least_tiles: int


PRESETS = {
    "default": Preset(
        slides_per_hospital=4,
        size_px=5632,
        tiles_per_class={"Blood": 18.0, "Damaged": 62.0, "Muscle": 80.0, "Stroma": 120.0, "Urothelium": 100.0},
        least_tiles=6,
    ),
    "tiny": Preset(
        slides_per_hospital=2,
        size_px=1792,
        tiles_per_class={"Blood": 8.0, "Damaged": 12.0, "Muscle": 14.0, "Stroma": 20.0, "Urothelium": 20.0},
        least_tiles=2,
    ),
}


@dataclass(frozen=True)
class _SlideJob:
    patient: str
    hospital: Hospital
    split: str
    seed: tuple[int, int, int]


def generate_cohort(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    preset: str = "default",
    slides_per_hospital: int | None = None,
    size_px: int | None = None,
    shift: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make slides, annotations and the cohort table; the same arguments give the same pixels.

    A folder that already holds the very same cohort is left as it is.

    Args:
        folder: Where to write ``cohort.csv``, ``slides/*.tif`` and ``annotations/*.geojson``.
        seed: Any whole number from 0.
        preset: ``default`` (8 slides, made for the demo) or ``tiny`` (4 slides, made for tests).
        slides_per_hospital: Slides of each of the two hospitals, one patient each; the preset's where not given.
        size_px: Edge of the slides at level 0 in pixels, at least 1536; the preset's where not given.
        shift: False: both hospitals in every split (with two slides each: ``train`` and ``val`` of A, ``train`` and
            ``test`` of B). True: hospital A is ``train``; hospital B, whose stain and scanner nobody has labelled yet,
            is ``pool``, ``val`` and ``test``.
        workers: Slides made at the same time.
        progress: Called with (slides done, slides in all) after each slide.

    Returns:
        Path of ``cohort.csv``, with the columns of every cohort and ``hospital``.

    Raises:
        ConfigError: An argument is out of range, or the slides are too small to hold all five classes.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(sorted(PRESETS))}, not {preset!r}")
    size = PRESETS[preset]
    if slides_per_hospital is not None:
        size = replace(size, slides_per_hospital=slides_per_hospital)
    if size_px is not None:
        size = replace(size, size_px=size_px)
    least = 3 if shift else 2
    if size.slides_per_hospital < least:
        raise ConfigError(
            f"slides_per_hospital must be at least {least} with shift={shift}, so that every split has a patient, "
            f"but is {size.slides_per_hospital}"
        )
    if size.size_px < MIN_SIZE_PX:
        raise ConfigError(f"size_px must be at least {MIN_SIZE_PX} to hold all five classes, but is {size.size_px}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, but is {seed}")
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, but is {workers}")

    root = Path(folder)
    table = root / "cohort.csv"
    jobs = _jobs(seed, size.slides_per_hospital, shift)
    record = {"generator_version": GENERATOR_VERSION, "seed": seed, "shift": shift, **asdict(size)}
    record_file = root / "generated.json"
    if _is_there(record_file, record, table, root, jobs):
        return table
    for name in ("slides", "annotations"):
        (root / name).mkdir(parents=True, exist_ok=True)
    record_file.unlink(missing_ok=True)

    texture_bank(seed)  # once, before the workers ask for it at the same time
    with ThreadPoolExecutor(min(workers, len(jobs))) as executor:
        done = executor.map(lambda job: _make_slide(root, job, size), jobs)
        for count, _ in enumerate(done, start=1):
            if progress is not None:
                progress(count, len(jobs))
    _write_table(table, jobs)
    with atomic_path(record_file) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return table


def plan_with_all_classes(
    generator: np.random.Generator, *, size_px: int, mpp: float, tiles_per_class: dict[str, float], least_tiles: int
) -> tuple[Plan, list[Annotation]]:
    """Draw plans until one can be annotated with all five classes.

    Args:
        generator: Source of randomness.
        size_px: Edge of the slide at level 0 in pixels.
        mpp: Micrometres per pixel at level 0.
        tiles_per_class: Area to outline, in tiles of 128 px at 40x.
        least_tiles: Whole tiles of the sampling grid that each class must cover.

    Returns:
        The plan and its annotations.

    Raises:
        ConfigError: No plan in 80 has all classes.
    """
    for _ in range(_TRIES):
        drawing, outlining = generator.spawn(2)
        plan = plan_slide(drawing, width_px=size_px, height_px=size_px, mpp=mpp)
        annotations = outline_regions(outlining, plan, tiles_per_class, least_tiles=least_tiles)
        if annotations is not None:
            return plan, annotations
    raise ConfigError(f"no slide of {size_px} px at {mpp} um per px holds all five classes; choose a greater size_px")


def assign_splits(slides_per_hospital: int, *, shift: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split of each patient of hospital A and of hospital B, in the order of their numbers.

    Args:
        slides_per_hospital: Patients of each hospital, at least 2, with ``shift`` at least 3.
        shift: See :func:`generate_cohort`.
    """
    count = range(slides_per_hospital)
    if shift:
        return tuple("train" for _ in count), tuple(("pool", "val", "test", "pool", "pool")[i % 5] for i in count)
    if slides_per_hospital == 2:
        return ("train", "val"), ("train", "test")
    both = tuple(("train", "val", "test", "train", "train")[i % 5] for i in count)
    return both, both


def _jobs(seed: int, slides_per_hospital: int, shift: bool) -> list[_SlideJob]:
    return [
        _SlideJob(f"{hospital.name}-{i + 1:02d}", hospital, split, (seed, h, i))
        for h, (hospital, splits) in enumerate(
            zip(HOSPITALS, assign_splits(slides_per_hospital, shift=shift), strict=True)
        )
        for i, split in enumerate(splits)
    ]


def _make_slide(root: Path, job: _SlideJob, size: Preset) -> None:
    planning, rendering, sampling = np.random.default_rng(job.seed).spawn(3)
    plan, annotations = plan_with_all_classes(
        planning,
        size_px=size.size_px,
        mpp=job.hospital.mpp,
        tiles_per_class=size.tiles_per_class,
        least_tiles=size.least_tiles,
    )
    renderer = SlideRenderer(rendering, plan, job.hospital, Patient.draw(sampling), seed=job.seed[0])
    image = np.empty((size.size_px, size.size_px, 3), np.uint8)
    blocks = -(-size.size_px // BLOCK_PX)
    step = -(-size.size_px // blocks)
    for y in range(0, size.size_px, step):
        for x in range(0, size.size_px, step):
            part = image[y : y + step, x : x + step]
            part[:] = renderer.block(x, y, part.shape[1], part.shape[0])
    slide = root / "slides" / f"{job.patient}.tif"
    remove_half_written(slide.parent, slide.stem)
    write_pyramid(slide, image, mpp=job.hospital.mpp, jpeg_quality=job.hospital.jpeg_quality)
    write_geojson(root / "annotations" / f"{job.patient}.geojson", annotations)


def _write_table(table: Path, jobs: list[_SlideJob]) -> None:
    with atomic_path(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["slide", "annotations", "patient", "split", "mpp", "part", "hospital"])
        for job in jobs:
            slide, annotations = f"slides/{job.patient}.tif", f"annotations/{job.patient}.geojson"
            writer.writerow([slide, annotations, job.patient, job.split, "", "", job.hospital.name])


def _is_there(record_file: Path, record: dict[str, object], table: Path, root: Path, jobs: list[_SlideJob]) -> bool:
    """Whether the folder holds this very cohort; the record is written last, so a killed run does not count."""
    if not record_file.is_file() or not table.is_file():
        return False
    try:
        same = json.loads(record_file.read_text(encoding="utf-8")) == record
    except ValueError:
        return False
    return same and all(
        (root / "slides" / f"{job.patient}.tif").is_file()
        and (root / "annotations" / f"{job.patient}.geojson").is_file()
        for job in jobs
    )
