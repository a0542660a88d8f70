# SPDX-License-Identifier: Apache-2.0
"""What the parts share: their options, clocks, tables, the machine in words, the slides they run on."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parent
_PACKAGES = (
    "tral_monai", "torch", "torchvision", "monai", "numpy", "imagecodecs", "onnxruntime", "openvino", "tensorrt",
)  # fmt: skip


@dataclass
class Options:
    """The command line.

    Attributes:
        work: folder of what is made once: slides, weights.
        slide: a slide to run on; None: generated ones.
        mpp: its micrometres per pixel, where it records none.
        peers: name of a peer -> its Python.
        checkpoint: a trained TriCNN; None: random convolutions under a head trained in seconds.
        gates: exit gates beside the checkpoint for early exit, or [] for a sweep of its own.
        tiles: triplets per round and plan.
        images: fields per round and plan of the detector.
        repeats: rounds.
        threads: CPU threads of every plan; 0 leaves it to the libraries.
        batch_size: tiles per forward pass.
        side: side of the generated slide in pixels.
    """

    work: Path
    slide: Path | None = None
    mpp: float | None = None
    peers: dict[str, str] = field(default_factory=dict)
    checkpoint: Path | None = None
    tiles: int = 256
    images: int = 8
    repeats: int = 3
    threads: int = 1
    batch_size: int = 64
    side: int = 20480
    backbone: str = "vgg16"

    def slide_path(self, side: int | None = None) -> Path:
        """The slide given, or a generated one, made where it is not there yet."""
        if side is None and self.slide is not None:
            return self.slide
        return generated_slide(self.work, side or self.side)


@dataclass
class Table:
    """One table: rows of named cells, and what stands below it."""

    title: str
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table as Markdown; a row without a column's cell has a dash there."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in self.rows]
            lines.append("")
        return "\n".join(lines + self.notes) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@dataclass
class Spent:
    """Seconds of a piece of work."""

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def clock() -> Iterator[Spent]:
    """CPU and wall seconds of a block of this process, all threads."""
    spent = Spent()
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield spent
    finally:
        spent.cpu, spent.wall = time.process_time() - cpu, time.perf_counter() - wall


def take_turns(plans: Mapping[str, Callable[[], Spent]], repeats: int) -> dict[str, list[Spent]]:
    """Run every plan once a round, so that what slows the machine down hits all of them alike."""
    rounds: dict[str, list[Spent]] = {name: [] for name in plans}
    for number in range(repeats):
        for name, plan in plans.items():
            rounds[name].append(plan())
            spent = rounds[name][-1]
            say(f"  round {number + 1}/{repeats} {name}: {spent.cpu:.2f} CPU-s, {spent.wall:.2f} s")
    return rounds


def rates(
    rounds: Mapping[str, Sequence[Spent]], count: int | Mapping[str, int], *, baseline: str, unit: str
) -> list[dict[str, Any]]:
    """One row per plan: medians of the rates, and of each round's ratio to the baseline of the same round."""
    rows = []
    for name, spent in rounds.items():
        pairs = list(zip(spent, rounds[baseline], strict=True))
        mine, base = (count, count) if isinstance(count, int) else (count[name], count[baseline])
        rows.append(
            {
                "plan": name,
                f"{unit} per CPU-s": round(statistics.median(mine / one.cpu for one in spent), 3),
                f"{unit} per wall-s": round(statistics.median(mine / one.wall for one in spent), 3),
                "ratio (CPU-s)": round(
                    statistics.median((mine / one.cpu) / (base / other.cpu) for one, other in pairs), 2
                ),
                "ratio (wall)": round(
                    statistics.median((mine / one.wall) / (base / other.wall) for one, other in pairs), 2
                ),
            }
        )
    return rows


def generated_slide(work: Path, side: int) -> Path:
    """A tiled-JPEG slide of the reading benchmark, made once."""
    path = work / f"generated_{side}.tif"
    if not path.exists():
        sys.path.insert(0, str(SCRIPTS))
        from benchmark_reading import write_generated_slide

        say(f"writing {path.name}")
        write_generated_slide(path.with_suffix(".part"), side)
        path.with_suffix(".part").replace(path)
    return path


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as stream:
        while stream.read(1 << 24):
            pass


def machine(options: Options) -> dict[str, Any]:
    """The processor, its cores, threads in use, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "bf16": [name for name in ("avx512_bf16", "amx_bf16") if name in flags],
        "threads": options.threads or "as the libraries choose",
        "python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)
