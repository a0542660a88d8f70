# SPDX-License-Identifier: Apache-2.0
"""By how much a whole run with the null network grows its process at most, on slides of different sizes."""

from __future__ import annotations

from dataclasses import replace

from benchmark_parts.common import Options, Table, say
from benchmark_parts.programs import run_program


def run(options: Options) -> list[Table]:
    rows = []
    for side in (options.side, 2 * options.side):
        slide = options.slide_path(side).resolve()
        found = run_program("tral_monai", slide, replace(options, slide=slide))
        growth = found["peak_rss_mib"] - found["imported_rss_mib"]
        rows.append(
            {
                "slide": f"{side} x {side}",
                "tiles": found["tiles"],
                "after imports, MiB": found["imported_rss_mib"],
                "growth at most, MiB": round(growth, 1),
                "run, CPU-s": found["stages"]["run"]["cpu_s"],
            }
        )
        say(f"  {rows[-1]}")
    return [Table("Memory of a whole run, null network", rows)]
