# SPDX-License-Identifier: Apache-2.0
"""A whole run with a network that costs nothing: opening, mask, reading, outputs; beside the peers' on the same slide.

Every tool runs in a process of its own, with its own tissue finder, and writes its own outputs. Rates count everything
after the imports; the imports stand in a column of their own.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark_parts.common import Options, Spent, Table, rates, say, take_turns, warm
from benchmark_parts.programs import run_program

_OURS = "tral_monai"


def run(options: Options) -> list[Table]:
    slide = options.slide_path().resolve()
    warm(slide)
    figures: dict[str, list[dict[str, Any]]] = {}
    notes = [f"`{slide.name}`, 40x tiles of 128 px, {options.repeats} rounds, medians."]

    def once(name: str, python: str) -> Spent:
        found = run_program(name, slide, options, python=python)
        figures.setdefault(name, []).append(found)
        stages = [stage for title, stage in found["stages"].items() if title != "start-up"]
        return Spent(sum(stage["cpu_s"] for stage in stages), sum(stage["wall_s"] for stage in stages))

    plans: dict[str, Callable[[], Spent]] = {_OURS: partial(once, _OURS, sys.executable)}
    for name, python in options.peers.items():
        try:  # once before it counts: a peer that does not run is reported, and must not end the others' comparison
            say(f"  trying {name}")
            once(name, python)
        except (RuntimeError, OSError) as error:
            notes.append(f"`{name}` did not run: {' '.join(str(error).split())}")
        else:
            figures.pop(name)
            plans[name] = partial(once, name, python)
    rounds = take_turns(plans, options.repeats)
    baseline = next((name for name in plans if name != _OURS), _OURS)
    tiles = {name: int(found[0]["tiles"]) for name, found in figures.items()}
    rows = []
    for row in rates(rounds, tiles, baseline=baseline, unit="tiles"):
        name = row.pop("plan")
        found = figures[name]
        versions = found[0]["versions"]
        rows.append(
            {
                "tool": f"{name} {versions.get(name, '')}".strip(),
                "tiles": tiles[name],
                **row,
                "imports, CPU-s": round(statistics.median(one["stages"]["start-up"]["cpu_s"] for one in found), 2),
                "peak RSS, MiB": max(one["peak_rss_mib"] for one in found),
                "outputs": ", ".join(found[0]["outputs"]),
                "python, torch": f"{versions['python']}, {versions.get('torch', '-')}",
            }
        )
    notes.append(f"The ratio is to {baseline}. Rates hold all work after the imports, the outputs named included.")
    return [Table("Null model, outputs included", rows, notes)]
