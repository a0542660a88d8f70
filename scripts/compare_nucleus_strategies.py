# SPDX-License-Identifier: Apache-2.0
"""Run several strategies over folds and seeds on one data set of nuclei, and tabulate what they reached at equal cost.

Every run is an ordinary run folder (ledger, summary.csv), so an interrupted comparison goes on where it was: give the
same command again. Runs share the detectors of the first round, which no strategy has any say in. For each open-set
setting it writes, below the output folder, comparison.csv (one row per run), strategies.csv (mean, deviation and paired
difference to the control per strategy), comparison.md, comparison.png and comparison.html (the first run, compared).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_open_set_nucleus_detection" / "configs"
OVERLAYS = ROOT / "configs" / "osal_nd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="consep, nucls, crchistophenotypes, coco, qupath, generated")
    parser.add_argument("--dataset-dir", required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument(
        "--overlay", action="append", default=[], help="configuration on top of the bundle's; repeat it"
    )
    parser.add_argument("--strategies", nargs="+", required=True, help="names; `random` is the control")
    parser.add_argument("--open-sets", nargs="+", default=["5+2"], help="settings, such as 5+2 4+3 3+4")
    parser.add_argument("--folds", nargs="+", type=int, default=[0], help="folds that test in turn (default: 0)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds in each fold (default: 0)")
    parser.add_argument("--rounds", type=int, help="trainings of each run; the bundle's by default")
    parser.add_argument("--control", default="random", help="strategy that the others are set against (random)")
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("ID", "VALUE"), help="further overrides"
    )
    parser.add_argument("--table-only", action="store_true", help="run nothing: tabulate the runs that are there")
    args = parser.parse_args()

    console = Console(highlight=False, soft_wrap=True)
    for open_set in args.open_sets:
        folder = args.output_dir / open_set
        runs = [
            (strategy, fold, seed, folder / f"{strategy}_fold{fold}_seed{seed}")
            for fold in args.folds
            for seed in args.seeds
            for strategy in args.strategies
        ]
        for strategy, fold, seed, run in [] if args.table_only else runs:
            console.rule(f"{open_set}, {run.name}")
            _run(args, open_set, strategy, fold, seed, run)
        _tabulate(args, folder, [run for *_, run in runs], console)


def _run(args: argparse.Namespace, open_set: str, strategy: str, fold: int, seed: int, run: Path) -> None:
    from tral_monai.rounds.bundle_run import run_workflow

    own = OVERLAYS / f"{strategy}.yaml"  # a strategy's options lie in its overlay
    overrides = {name: yaml.safe_load(value) for name, value in args.set}
    if args.rounds is not None:
        overrides["rounds"] = args.rounds
    run_workflow(
        [BUNDLE / "active_learning.yaml", *args.overlay, *([own] if own.is_file() else [])],
        bundle_root=str(BUNDLE.parent),
        dataset=args.dataset,
        dataset_dir=str(args.dataset_dir),
        open_set=open_set,
        strategy=strategy,
        fold=fold,
        seed=seed,
        output_dir=str(run),
        shared_dir=str(args.output_dir / "shared"),
        report=False,
        **overrides,
    )


def _tabulate(args: argparse.Namespace, folder: Path, runs: list[Path], console: Console) -> None:
    from tral_monai.report.nuclei.charts import comparison_png
    from tral_monai.report.nuclei.comparison import compare
    from tral_monai.report.nuclei.page import write_report
    from tral_monai.report.nuclei.run_data import NucleusRunData
    from tral_monai.report.nuclei.strategy_table import strategy_table

    there = [run for run in runs if (run / "ledger.sqlite").is_file()]
    if len(there) < 2:
        console.print(f"{folder}: {len(there)} run, so there is nothing to compare yet")
        return
    per_run, per_strategy, text = strategy_table(there, control=args.control)
    per_run.to_csv(folder / "comparison.csv", index=False)
    per_strategy.to_csv(folder / "strategies.csv", index=False)
    (folder / "comparison.md").write_text(f"{text}\n", encoding="utf-8")
    comparison = compare([NucleusRunData.from_folder(run) for run in there])
    if comparison is not None:
        comparison_png(comparison, folder / "comparison.png")
    write_report(there, folder / "comparison.html")
    console.print(text)
    console.print(f"tables, curves and page: {folder}")


if __name__ == "__main__":
    main()
