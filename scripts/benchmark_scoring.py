# SPDX-License-Identifier: Apache-2.0
"""Measure what choosing costs: k-centre over a large pool, every nucleus strategy, and both against the forward pass.

    python scripts/benchmark_scoring.py --json scoring.json
    python scripts/benchmark_scoring.py --parts strategies --images 2000 --only cald openal --json scoring.json

Everything runs in one process and one thread, on random numbers of the sizes given. Times are seconds of the wall clock
and, in brackets, of the processor, which other work on the machine does not lengthen. Each part measures its own
baseline in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import PoolOutputs, Strategy
from tral_monai.strategies.geometry import single_thread
from tral_monai.strategies.registry import get_strategy, strategy_names

F32 = npt.NDArray[np.float32]
PARTS = ("kcenter", "strategies", "forward")
_VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in strategy_names("nuclei")},
    "laal (stability)": ("laal", {"cue": "stability"}),
    "density (known fraction)": ("density", {"of": "known_fraction"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=int, default=350_000, help="k-centre: pool (default: %(default)s)")
    parser.add_argument("--width", type=int, default=512, help="k-centre: feature width (default: %(default)s)")
    parser.add_argument("--picks", type=int, default=200, help="k-centre: picks measured (default: %(default)s)")
    parser.add_argument("--images", type=int, default=20_000, help="images in the pool (default: %(default)s)")
    parser.add_argument("--boxes", type=float, default=36, help="mean boxes per image (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=5, help="known classes (default: %(default)s)")
    parser.add_argument(
        "--features", type=int, default=128, help="width of RoI and image features (default: %(default)s)"
    )
    parser.add_argument("--n", type=int, default=3_000, help="images chosen (default: %(default)s, 15 %% of 20,000)")
    parser.add_argument("--only", nargs="+", choices=sorted(_VARIANTS), help="only these strategies")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of each strategy; the median counts (default: %(default)s)"
    )
    parser.add_argument("--forward-seconds-per-image", type=float, help="of your detector; without it one is measured")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"versions": {"python": platform.python_version(), "numpy": version("numpy")}}
    console = Console(width=110)
    with single_thread():
        if "kcenter" in arguments.parts:
            figures["kcenter"] = [
                measure_kcenter(arguments.rows, arguments.width, arguments.picks, clusters, arguments.seed)
                for clusters in (0, 100)
            ]
            for measured in figures["kcenter"]:
                show_kcenter(console, measured)
        if "strategies" in arguments.parts:
            figures["strategies"] = measure_strategies(arguments)
    if "forward" in arguments.parts:
        figures["forward"] = (
            {"seconds_per_image": arguments.forward_seconds_per_image, "detector": "given"}
            if arguments.forward_seconds_per_image
            else measure_forward(arguments.seed)
        )
    if "strategies" in figures:
        show_strategies(console, figures["strategies"], figures.get("forward"))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_kcenter(rows: int, width: int, picks: int, clusters: int, seed: int) -> dict[str, Any]:
    """The `coreset` strategy on random features, and the naive step `norm(X - X[c])` beside it.

    With clusters, a pick covers many rows at once; without, hardly any but itself.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, width), dtype=np.float32)
    if clusters:
        features *= 0.3
        centres = rng.standard_normal((clusters, width), dtype=np.float32)
        for start in range(0, rows, 10_000):
            part = features[start : start + 10_000]
            part += centres[rng.integers(0, clusters, len(part))]
    outputs = PoolOutputs(ids=np.arange(rows), features=features)
    strategy = get_strategy("coreset", "nuclei")

    def choose(n: int) -> Callable[[], object]:
        return lambda: strategy.select(outputs, n, np.random.default_rng(seed))

    first, first_cpu = timed(choose(1))
    all_, all_cpu = timed(choose(picks))
    per_pick, per_pick_cpu = (all_ - first) / (picks - 1), (all_cpu - first_cpu) / (picks - 1)
    tracemalloc.start()  # a run of its own: numpy reports its memory there
    choose(3)()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    nearest = np.full(rows, np.inf, dtype=np.float32)
    naive = [
        timed(lambda c=c: np.minimum(nearest, np.linalg.norm(features - features[c], axis=1), out=nearest))  # type: ignore[misc]
        for c in (0, 1, 2)
    ]
    naive_wall, naive_cpu = (statistics.median(column) for column in zip(*naive, strict=True))
    return {
        "rows": rows,
        "width": width,
        "clusters": clusters,
        "picks_measured": picks,
        "start_seconds": first,
        "start_cpu_seconds": first_cpu,
        "seconds_per_pick": per_pick,
        "cpu_seconds_per_pick": per_pick_cpu,
        "extrapolated_seconds_1000_picks": first + 999 * per_pick,
        "extrapolated_cpu_seconds_1000_picks": first_cpu + 999 * per_pick_cpu,
        "peak_extra_mib": peak,
        "features_mib": features.nbytes / 2**20,
        "naive_seconds_per_pick": naive_wall,
        "naive_cpu_seconds_per_pick": naive_cpu,
        "times_naive": naive_cpu / per_pick_cpu,
    }


def show_kcenter(console: Console, f: dict[str, Any]) -> None:
    table = Table(
        title=f"k-centre over {f['rows']:,} x {f['width']} float32 ({f['features_mib']:.0f} MiB), "
        + (f"{f['clusters']} clusters" if f["clusters"] else "no clusters")
    )
    for column in ("step", "seconds per pick (CPU)", "ratio (CPU)", "1,000 picks, extrapolated", "extra memory"):
        table.add_column(column)
    table.add_row(
        r"naive norm(X - X\[c])",  # rich would take [c] for a style
        f"{f['naive_seconds_per_pick']:.3f} ({f['naive_cpu_seconds_per_pick']:.3f})",
        "1x (baseline)",
        f"{1000 * f['naive_seconds_per_pick']:.0f} s",
        "-",
    )
    table.add_row(
        f"coreset, {f['picks_measured']} picks",
        f"{f['seconds_per_pick']:.3f} ({f['cpu_seconds_per_pick']:.3f})",
        f"{f['times_naive']:.1f}x faster",
        f"{f['extrapolated_seconds_1000_picks']:.0f} s ({f['extrapolated_cpu_seconds_1000_picks']:.0f})",
        f"{f['peak_extra_mib']:.0f} MiB",
    )
    console.print(table)


def measure_strategies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Choosing `--n` images with every strategy; `uncertainty` is the baseline of the ratios."""
    outputs = random_pool(arguments)
    names = ["uncertainty", *(name for name in arguments.only or sorted(_VARIANTS) if name != "uncertainty")]
    rows: dict[str, Any] = {}
    for variant in names:
        name, options = _VARIANTS[variant]
        strategy: Strategy = get_strategy(name, "nuclei", **options)
        rounds = [
            timed(lambda s=strategy: s.select(outputs, arguments.n, np.random.default_rng(arguments.seed)))  # type: ignore[misc]
            for _ in range(arguments.repeats)
        ]
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        rows[variant] = {"seconds": wall, "cpu_seconds": cpu, "rounds": rounds}
    for row in rows.values():
        row["times_uncertainty"] = row["cpu_seconds"] / rows["uncertainty"]["cpu_seconds"]
    return {
        "images": arguments.images,
        "boxes": int(outputs.found().offsets[-1]),
        "classes": arguments.classes,
        "feature_width": arguments.features,
        "n": arguments.n,
        "repeats": arguments.repeats,
        "rows": rows,
    }


def show_strategies(console: Console, f: dict[str, Any], forward: dict[str, Any] | None) -> None:
    table = Table(
        title=f"choosing {f['n']:,} of {f['images']:,} images ({f['boxes']:,} boxes, {f['classes']} known classes, "
        f"{f['feature_width']}-d features)"
    )
    for column in ("strategy", "seconds (CPU)", "ratio to uncertainty (CPU)"):
        table.add_column(column)
    if forward:
        table.add_column("share of one forward pass (CPU)")
        console.print(
            f"forward pass: {forward['seconds_per_image'] * 1e3:.1f} ms of CPU per image ({forward['detector']})"
        )
    for name, row in sorted(f["rows"].items(), key=lambda item: item[1]["cpu_seconds"]):
        cells = [name, f"{row['seconds']:.2f} ({row['cpu_seconds']:.2f})", f"{row['times_uncertainty']:.1f}x"]
        if forward:
            row["share_of_forward_pass"] = row["cpu_seconds"] / (f["images"] * forward["seconds_per_image"])
            cells.append(f"{row['share_of_forward_pass']:.2%}")
        table.add_row(*cells)
    console.print(table)


def measure_forward(seed: int, images: int = 12) -> dict[str, Any]:
    """CPU seconds per image of a small torchvision detector (random weights), one thread, one image at a time."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=6, box_score_thresh=0.0, box_detections_per_img=36
    ).eval()
    batch = torch.rand(images, 3, 256, 256, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        detector([batch[0]])
        seconds = [timed(lambda image=image: detector([image]))[1] for image in batch]  # type: ignore[misc]
    return {
        "seconds_per_image": statistics.median(seconds),
        "images": images,
        "detector": "torchvision fasterrcnn_mobilenet_v3_large_320_fpn, 256 px images, one thread",
    }


def random_pool(arguments: argparse.Namespace) -> PoolOutputs:
    """What detectors would give for the pool: every field that a nucleus strategy needs, of random numbers."""
    rng = np.random.default_rng(arguments.seed)
    n, k, width = arguments.images, arguments.classes, arguments.features
    counts = rng.poisson(arguments.boxes, size=n)
    total = int(counts.sum())
    proposals = random_boxes(rng, total)
    target = detections(
        rng,
        counts,
        moved(rng, proposals),
        k,
        proposals_px=proposals,
        evidence=rng.standard_exponential((total, k), dtype=np.float32) * 5,
        features=rng.standard_normal((total, width), dtype=np.float32),
    )
    auxiliary = detections(
        rng,
        counts,
        moved(rng, proposals),
        k + 1,
        logits=rng.standard_normal((total, k + 1), dtype=np.float32),
        prototype_distances=rng.uniform(0, 10, (total, 2)).astype(np.float32),
    )

    def again() -> Detections:
        return detections(rng, counts, moved(rng, proposals), k)

    return PoolOutputs(
        ids=np.arange(n),
        detections=target,
        auxiliary_detections=auxiliary,
        view_detections=tuple(again() for _ in range(4)),
        noise_detections=tuple(again() for _ in range(6)),
        predicted_losses=rng.standard_normal(n, dtype=np.float32),
        features=rng.standard_normal((n, width), dtype=np.float32),
        labelled_features=rng.standard_normal((1000, width), dtype=np.float32),
        known_reference=rng.standard_normal((36_000, width), dtype=np.float32),
        unknown_reference=rng.standard_normal((2_000, width), dtype=np.float32),
        labelled_class_means=np.linspace(10, 1, k),
        labelled_unknown=2_000,
    )


def detections(
    rng: np.random.Generator, counts: npt.NDArray[np.int64], boxes_px: F32, k: int, **columns: F32
) -> Detections:
    raw = rng.standard_exponential((len(boxes_px), 1 + k), dtype=np.float32)
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    return Detections(
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_px=boxes_px,
        labels=probabilities[:, 1:].argmax(axis=1),
        scores=probabilities[:, 1:].max(axis=1),
        probabilities=probabilities,
        **columns,
    )


def moved(rng: np.random.Generator, boxes_px: F32) -> F32:
    return boxes_px + rng.uniform(-2, 2, boxes_px.shape).astype(np.float32)


def random_boxes(rng: np.random.Generator, total: int) -> F32:
    corner = rng.uniform(0, 230, (total, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 30, (total, 2))], axis=1).astype(np.float32)


if __name__ == "__main__":
    main()
