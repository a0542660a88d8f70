# SPDX-License-Identifier: Apache-2.0
"""The demo: slides are generated, two strategies spend the same budget on them, a report says what was learnt.

Everything is made here: no download, no GPU. On two CPU cores it takes a few minutes, most of it reading features.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification" / "configs"
OVERLAY = ROOT / "configs" / "tri_al" / "cpu.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    parser.add_argument("--strategies", nargs="+", default=["random", "tri_al_quota"], help="compared at equal labels")
    parser.add_argument("--rounds", type=int, default=3, help="trainings; a query follows each but the last")
    parser.add_argument("--budget", type=int, default=40, help="labels asked for in one round")
    parser.add_argument("--initial-per-class", type=int, default=4, help="labels of each class to start from")
    parser.add_argument("--seed", type=int, default=0, help="of the slides, the draws and the training")
    args = parser.parse_args()
    started, console = time.monotonic(), Console(highlight=False, soft_wrap=True)

    console.print("[bold]1  Slides[/]  two hospitals, five tissue classes, annotated as QuPath GeoJSON")
    from tral_monai.data.generated import generate_cohort

    cohort = args.output_dir / "cohort" / "cohort.csv"
    if not cohort.is_file():
        cohort = generate_cohort(cohort.parent, seed=args.seed)
    console.print(f"   {cohort}")

    console.print(
        "[bold]2  Rounds[/]  the small ImageNet backbone stays frozen; each round trains the classifier on it"
    )
    from tral_monai.rounds.bundle_run import run_workflow

    runs = []
    for strategy in args.strategies:
        run = args.output_dir / "runs" / strategy
        run_workflow(
            [BUNDLE / "active_learning.yaml", OVERLAY],
            bundle_root=str(BUNDLE.parent),
            cohort=str(cohort),
            output_dir=str(run),
            feature_dir=str(args.output_dir / "features"),
            strategy=strategy,
            rounds=args.rounds,
            budget=args.budget,
            initial_per_class=args.initial_per_class,
            seed=args.seed,
        )
        runs.append(run)

    console.print(f"[bold]3  Tissue map[/]  the model of {args.strategies[-1]} on a test slide")
    from tral_monai.data.cohort import read_cohort

    slide = next(row for row in read_cohort(cohort).rows if row.split == "test")
    maps = args.output_dir / "maps"
    run_workflow(
        [BUNDLE / "inference.yaml", OVERLAY],
        bundle_root=str(BUNDLE.parent),
        checkpoint=str(runs[-1] / "model.pt"),
        slides=str(slide.slide),
        output_dir=str(maps),
    )
    shutil.copytree(maps, runs[-1] / "maps", dirs_exist_ok=True)

    console.print("[bold]4  Report[/]")
    from tral_monai.report.page import write_report
    from tral_monai.report.run_data import RunData
    from tral_monai.report.summary import three_lines

    report = write_report([runs[-1], *runs[:-1]], args.output_dir / "report.html")
    for line in three_lines(RunData.from_folder(runs[-1]), [RunData.from_folder(run) for run in runs[:-1]]):
        console.print(f"   {escape(line)}")
    console.print(f"   Open [bold]{report}[/] in a browser; the maps are in {maps}")
    console.print(f"   finished in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
