# SPDX-License-Identifier: Apache-2.0
"""What every peer's program shares: its arguments, its clocks, one line of JSON at the end. Standard library only,
since each program runs under the peer's own interpreter."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

_STARTED = time.perf_counter()


def arguments() -> argparse.Namespace:
    """Slide, tile side, threads, output folder; also sets the threads of what is imported afterwards (0: its own)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("slide", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tile-px", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
            os.environ[name] = str(given.threads)
    return given


def cpu_seconds() -> float:
    """CPU seconds of this process and its finished children, user and system."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_rss_mib() -> float:
    """The most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


class Stages:
    """CPU and wall seconds between marks; what happened before the first mark is the start-up (imports)."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}
        self.imported_rss_mib: float | None = None
        self._cpu, self._wall = 0.0, _STARTED

    def mark(self, name: str) -> None:
        """End the stage ``name``: it lasted since the mark before."""
        cpu, wall = cpu_seconds(), time.perf_counter()
        self.figures[name] = {"cpu_s": round(cpu - self._cpu, 4), "wall_s": round(wall - self._wall, 4)}
        self._cpu, self._wall = cpu, wall
        if self.imported_rss_mib is None:
            self.imported_rss_mib = peak_rss_mib()


def report(stages: Stages, *, tiles: int, outputs: list[str], packages: tuple[str, ...]) -> None:
    """Print the figures as the last line of standard output."""
    found = {name: version(name) for name in packages}
    figures = {
        "tiles": tiles,
        "stages": stages.figures,
        "outputs": sorted(outputs),
        "versions": {"python": sys.version.split()[0], **found},
        "imported_rss_mib": stages.imported_rss_mib,
        "peak_rss_mib": peak_rss_mib(),
    }
    print("\n" + json.dumps(figures))
