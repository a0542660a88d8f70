# SPDX-License-Identifier: Apache-2.0
"""Measure what a slide's files cost: CPU seconds, peak memory and size of every writer, on maps of 350,000 tiles.

    python scripts/benchmark_outputs.py --tiles 350000 --nuclei 1000000 --json outputs.json

Two maps, both generated: `classifier` (blobs of six classes, every tenth tile another class, as a real classifier has
it) and `salt and pepper` (every tile a random class: the most polygons there can be). The slide of the overlay is a
generated pyramid of the map's size, open already. Every writer runs in a process of its own: memory is how far its
resident set rose above what it started with. The row `together` is one process that writes all default files of a
slide. The baselines are one GeoJSON polygon per tile and per nucleus as dicts through `json.dumps`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import tifffile
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from tral_monai.inference.areas import area_rows
from tral_monai.inference.class_map_png import ClassMapWriter
from tral_monai.inference.feature_spool import FeatureSpool
from tral_monai.inference.geojson_writer import GeoJSONWriter
from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.nuclei.counts import count_rows
from tral_monai.inference.nuclei.nuclei_csv import NucleiCSVWriter
from tral_monai.inference.nuclei.nuclei_geojson import NucleiGeoJSONWriter
from tral_monai.inference.nuclei.nuclei_overlay import NucleiOverlayWriter
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.overlay import OverlayWriter
from tral_monai.inference.probability_zarr import write_probabilities
from tral_monai.inference.slide_writer import SlideResult
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.slides.slide import Slide, open_slide

CLASSES = ("Blood", "Damaged", "Muscle", "Stroma", "Urothelium", "Fat")
STEP_PX = 128
TISSUE_SHARE = 0.55  # of the slide's area, as on a full section
Job = Callable[[Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--tiles", type=int, default=350_000, help="with tissue (default: %(default)s)")
    parser.add_argument("--nuclei", type=int, default=1_000_000, help="0 leaves them out (default: %(default)s)")
    parser.add_argument("--features", type=int, default=0, help="width of tile features to stream; 0 leaves them out")
    parser.add_argument("--overlay-px", type=int, default=2000, help="of the overlays (default: %(default)s)")
    parser.add_argument("--no-baseline", action="store_true", help="leave out json.dumps")
    parser.add_argument("--output-dir", type=Path, help="where the files stay; by default they are removed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {
        "tiles": arguments.tiles,
        "nuclei": arguments.nuclei,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("numpy", "shapely", "zarr")}},
    }
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("classifier", "salt and pepper"):
            tissue = random_map(kind, arguments.tiles, arguments.seed)
            path = write_empty_slide(folder / "slide.tif", tissue.grid.dimensions)
            target = folder / kind.replace(" ", "_")
            target.mkdir(exist_ok=True)
            with open_slide(path) as slide:
                jobs = tissue_jobs(tissue, slide, arguments)
                baseline = None if arguments.no_baseline else ("json.dumps, one polygon per tile", dump_tiles(tissue))
                figures[kind] = measure_all(jobs, target, baseline)
            show(console, f"{arguments.tiles:,} tiles with tissue, {kind}", figures[kind])
        if arguments.nuclei:
            nuclei = random_nuclei(arguments.nuclei, arguments.seed)
            path = write_empty_slide(folder / "slide.tif", nuclei.dimensions)
            target = folder / "nuclei"
            target.mkdir(exist_ok=True)
            with open_slide(path) as slide:
                baseline = None if arguments.no_baseline else ("json.dumps, one box per nucleus", dump_nuclei(nuclei))
                figures["nuclei_files"] = measure_all(
                    nucleus_jobs(nuclei, slide, arguments.overlay_px), target, baseline
                )
            show(console, f"{arguments.nuclei:,} nuclei", figures["nuclei_files"])
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def tissue_jobs(tissue: TissueMap, slide: Slide, arguments: argparse.Namespace) -> dict[str, Job]:
    """The default files first; those with an option's name in brackets are written on request."""
    features, seed, overlay = arguments.features, arguments.seed, OverlayWriter(max_px=arguments.overlay_px)
    jobs: dict[str, Job] = {
        "class map PNG": lambda folder: ClassMapWriter().write(folder / "s_classes.png", slide, tissue),
        "merged GeoJSON": lambda folder: GeoJSONWriter().write(folder / "s.geojson", slide, tissue),
        "OME-Zarr": lambda folder: write_probabilities(folder / "s_probabilities.ome.zarr", tissue, name="s"),
        "overlay PNG": lambda folder: overlay.write(folder / "s_overlay.png", slide, tissue),
        "areas row and record": lambda folder: write_tables(folder, tissue.describe(), area_rows),
        "GeoJSON (per_tile)": lambda folder: GeoJSONWriter(per_tile=True).write(folder / "t.geojson", slide, tissue),
    }
    if features:
        jobs[f"features ({features} float16)"] = lambda folder: stream_features(folder, tissue, features, seed)
    return jobs


def nucleus_jobs(nuclei: NucleusMap, slide: Slide, overlay_px: int) -> dict[str, Job]:
    overlay = NucleiOverlayWriter(max_px=overlay_px)
    return {
        "GeoJSON": lambda folder: NucleiGeoJSONWriter().write(folder / "s.geojson", slide, nuclei),
        "CSV": lambda folder: NucleiCSVWriter().write(folder / "s.csv", slide, nuclei),
        "overlay PNG": lambda folder: overlay.write(folder / "s_overlay.png", slide, nuclei),
        "counts row and record": lambda folder: write_tables(folder, nuclei.describe(), count_rows),
        "GeoJSON (packed)": lambda folder: NucleiGeoJSONWriter(packed=True).write(
            folder / "s.geojson.gz", slide, nuclei
        ),
    }


def measure_all(jobs: dict[str, Job], folder: Path, baseline: tuple[str, Job] | None) -> dict[str, Any]:
    """Every job alone, then those without a bracket together, then the baseline."""
    rows = {name: measure(job, folder / name.split(" (")[0].replace(" ", "_")) for name, job in jobs.items()}
    default = [job for name, job in jobs.items() if "(" not in name]

    def together(target: Path) -> None:
        for job in default:
            job(target)

    rows["together"] = measure(together, folder / "together")
    if baseline is not None:
        name, job = baseline
        rows[name] = measure(job, folder / "baseline")
        for row in rows.values():
            row["times_faster"] = rows[name]["cpu_seconds"] / row["cpu_seconds"]
    return rows


def measure(job: Job, folder: Path) -> dict[str, Any]:
    """Run a job in a child that begins with this process's memory; the files are counted and removed by their owner."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_measured, args=(job, folder, queue))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"a writer ended with exit code {child.exitcode}; see above")
    figures: dict[str, Any] = queue.get()
    return figures


def _measured(job: Job, folder: Path, queue: Any) -> None:
    before = psutil.Process().memory_info().rss
    wall, cpu = time.perf_counter(), time.process_time()
    job(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    queue.put(
        {
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "peak_growth_mib": max(0, peak - before) / 2**20,
            "written_mb": sum(files) / 1e6,
            "files": len(files),
        }
    )


def show(console: Console, title: str, rows: dict[str, Any]) -> None:
    table = Table(title=title)
    for column in ("file", "CPU-s", "wall s", "memory, MiB", "MB", "faster than json.dumps"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['cpu_seconds']:.2f}",
            f"{row['wall_seconds']:.2f}",
            f"{row['peak_growth_mib']:.0f}",
            f"{row['written_mb']:.1f}",
            f"{row['times_faster']:.1f}x" if "times_faster" in row else "-",
            style="bold" if name == "together" else None,
        )
    console.print(table)


def random_map(kind: str, tiles: int, seed: int) -> TissueMap:
    """A map with so many tiles of tissue, a few of them not analysed, and probabilities that fit its classes."""
    rng = np.random.default_rng(seed)
    side = math.ceil(math.sqrt(tiles / TISSUE_SHARE))
    shape = (side, side)
    density = ndimage.gaussian_filter(rng.normal(size=shape), side / 20).ravel()
    tissue = np.zeros(side * side, dtype=bool)
    tissue[np.argsort(density)[-tiles:]] = True
    tissue = tissue.reshape(shape)
    classes = MapClasses(CLASSES)
    count = len(CLASSES)
    if kind == "classifier":
        layers = [ndimage.gaussian_filter(rng.normal(size=shape), 6) for _ in range(count)]
        values = np.argmax(layers, axis=0)
        other = rng.random(shape) < 0.1
        values[other] = rng.integers(0, count, int(other.sum()))
    else:
        values = rng.integers(0, count, shape)
    probabilities = np.full((*shape, count), np.nan, dtype=np.float16)
    logits = rng.normal(size=(tiles, count)).astype(np.float32)
    logits[np.arange(tiles), values[tissue]] += 5
    exponents = np.exp(logits)
    probabilities[tissue] = exponents / exponents.sum(axis=1, keepdims=True)
    confidence = np.where(tissue, np.take_along_axis(probabilities, values[..., None], axis=2)[..., 0], np.nan)
    index = np.where(tissue, values + 1, classes.background).astype(np.uint8)
    index[tissue & (confidence < 0.6)] = classes.undefined
    lost = np.zeros(shape, dtype=bool)
    lost[side // 2 : side // 2 + 8, side // 2 : side // 2 + 8] = True
    lost &= tissue
    index[lost] = classes.not_analysed
    confidence[lost] = probabilities[lost] = np.nan
    grid = MapGrid(dimensions=(side * STEP_PX, side * STEP_PX), step_level0=float(STEP_PX))
    return TissueMap(
        class_index=index,
        confidence=confidence.astype(np.float16),
        probabilities=probabilities,
        classes=classes,
        grid=grid,
        mpp_xy=(0.25, 0.25),
        failed_centres_level0=grid.centres_level0(*np.nonzero(lost)),
        failures=("a region cannot be decoded",),
    )


def random_nuclei(count: int, seed: int) -> NucleusMap:
    """Nuclei at random places of a large slide, with all their columns."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 100_000, (count, 2))
    score, uncertainty, distance_known, distance_unknown = rng.uniform(0, 1, (4, count)).astype(np.float32)
    return NucleusMap(
        boxes_level0=np.column_stack((low, low + rng.uniform(20, 60, (count, 2)))).astype(np.float32),
        labels=rng.integers(0, 4, count),
        score=score,
        uncertainty=uncertainty,
        distance_known=distance_known,
        distance_unknown=distance_unknown,
        classes=("tumour", "lymphocyte", "fibroblast", "plasma"),
        colours={"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200), "fibroblast": (0, 150, 0), "plasma": (9, 9, 9)},
        dimensions=(100_096, 100_096),
        mpp_xy=(0.25, 0.25),
        analysed_mm2=300.0,
        masked=True,
        tiles=50_000,
    )


def write_empty_slide(path: Path, dimensions: tuple[int, int]) -> Path:
    """A slide of this size whose overview is a picture; its full resolution, which no writer reads, is left empty."""
    width, height = dimensions
    factor = 2 ** max(1, int(math.log2(max(dimensions) / 2048)))  # an overview is not made from full resolution
    small = (math.ceil(height / factor), math.ceil(width / factor), 3)
    picture = np.random.default_rng(0).integers(150, 255, small).astype(np.uint8)
    tile = 1024
    empty = (b"" for _ in range(math.ceil(width / tile) * math.ceil(height / tile)))
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        options: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg"}
        file.write(
            empty,
            shape=(height, width, 3),
            dtype=np.uint8,
            tile=(tile, tile),
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
            **options,
        )
        file.write(picture, tile=(256, 256), subfiletype=1, **options)
    return path


def write_tables(
    folder: Path, described: dict[str, Any], rows_of: Callable[[list[SlideResult]], list[dict[str, Any]]]
) -> None:
    record = {"result": described, "seconds": 1.0}
    (folder / "s.json").write_text(json.dumps(record, indent=2))
    rows = rows_of([SlideResult(name="s.tif", stem="s", record=record)])
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def stream_features(folder: Path, tissue: TissueMap, width: int, seed: int) -> None:
    """Through the temporary file and back in order, block by block; what HDF5 adds is a copy."""
    spool = FeatureSpool(folder / "s_features.h5", "float16")
    rows, columns = np.nonzero(~np.isnan(tissue.confidence))
    features = np.random.default_rng(seed).normal(size=(1024, width)).astype(np.float32)
    for start in range(0, len(rows), 1024):
        r, c = rows[start : start + 1024], columns[start : start + 1024]
        centres = tissue.grid.centres_level0(r, c)
        assert tissue.probabilities is not None
        spool.append(MappedTiles(r, c, centres, tissue.probabilities[r, c].astype(np.float32), features[: len(r)]))
    for _ in spool.in_order(1024):
        pass
    spool.discard()


def dump_tiles(tissue: TissueMap) -> Job:
    def job(folder: Path) -> None:
        x, y = tissue.grid.x_edges_level0.tolist(), tissue.grid.y_edges_level0.tolist()
        features = []
        for row, column in np.argwhere(tissue.class_index != tissue.classes.background).tolist():
            name = tissue.classes.names[tissue.class_index[row, column]]
            box = (x[column], y[row], x[column + 1], y[row + 1])
            measurements = {"probability": float(np.nan_to_num(tissue.confidence[row, column]))}
            features.append(as_feature(box, "detection", name, measurements))
        dump(folder, features)

    return job


def dump_nuclei(nuclei: NucleusMap) -> Job:
    def job(folder: Path) -> None:
        columns: list[npt.NDArray[Any]] = [nuclei.score, nuclei.uncertainty]
        columns += [nuclei.distance_known, nuclei.distance_unknown]
        names = ("Score", "Uncertainty", "Distance to known", "Distance to unknown")
        rows = zip(nuclei.boxes_level0.tolist(), nuclei.labels.tolist(), *(c.tolist() for c in columns), strict=True)
        dump(
            folder,
            [
                as_feature(box, "detection", nuclei.classes[label], dict(zip(names, values, strict=True)))
                for box, label, *values in rows
            ],
        )

    return job


def as_feature(box: Any, object_type: str, name: str, measurements: dict[str, float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": object_type,
            "classification": {"name": name, "color": [200, 0, 0]},
            "measurements": measurements,
        },
    }


def dump(folder: Path, features: list[dict[str, Any]]) -> None:
    with (folder / "baseline.geojson").open("w") as stream:
        stream.write(json.dumps({"type": "FeatureCollection", "features": features}))  # three times faster than dump


if __name__ == "__main__":
    main()
