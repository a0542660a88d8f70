# SPDX-License-Identifier: Apache-2.0
"""Run several strategies over several seeds on one cohort, at equal label counts, and tabulate what they reached.

Every run is an ordinary run folder (ledger, summary.csv, report), so an interrupted comparison goes on where it was.
Writes comparison.csv (one row per run) and comparison.md (mean and standard deviation over seeds).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification" / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", required=True, help="the cohort's CSV")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument(
        "--overlay", action="append", default=[], help="configuration on top of the bundle's; repeat it"
    )
    parser.add_argument("--strategies", nargs="+", required=True, help="names; `full` trains on all labels at once")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each strategy (default: 5)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=25)
    parser.add_argument("--initial-per-class", type=int, default=5)
    parser.add_argument("--oracle", default="auto")
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("ID", "VALUE"), help="further overrides"
    )
    args = parser.parse_args()

    from tral_monai.report.strategy_table import strategy_table
    from tral_monai.rounds.bundle_run import run_workflow

    console = Console(highlight=False, soft_wrap=True)
    runs: list[Path] = []
    for seed in range(args.seeds):
        for strategy in args.strategies:
            run = args.output_dir / f"{strategy}_seed{seed}"
            console.rule(run.name)
            whole = strategy == "full"
            run_workflow(
                [BUNDLE / "active_learning.yaml", *args.overlay],
                bundle_root=str(BUNDLE.parent),
                cohort=args.cohort,
                output_dir=str(run),
                feature_dir=str(args.output_dir / "features"),
                strategy="random" if whole else strategy,
                oracle="archive" if whole else args.oracle,
                rounds=1 if whole else args.rounds,
                budget=args.budget,
                initial_per_class=None if whole else args.initial_per_class,
                initial_fraction=1.0 if whole else None,
                seed=seed,
                **{name: yaml.safe_load(value) for name, value in args.set},
            )
            runs.append(run)

    per_run, per_strategy = strategy_table(runs)
    per_run.to_csv(args.output_dir / "comparison.csv", index=False)
    (args.output_dir / "comparison.md").write_text(per_strategy + "\n")
    console.print(per_strategy)
    console.print(f"one row per run: {args.output_dir / 'comparison.csv'}")


if __name__ == "__main__":
    main()
