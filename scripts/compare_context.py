# SPDX-License-Identifier: Apache-2.0
"""Train with tile context and with dense context on the same labels, over several seeds, and tabulate both.

Every training is an ordinary run folder that labels all of `train` at once, so an interrupted comparison goes on where
it was. Writes context.csv (one row per run and split) and context.md (mean and standard deviation over seeds, and the
paired difference).
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
    parser.add_argument("--seeds", type=int, default=5, help="runs with each context (default: 5)")
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("ID", "VALUE"), help="further overrides"
    )
    args = parser.parse_args()

    from tral_monai.report.context_table import CONTEXTS, context_table
    from tral_monai.rounds.bundle_run import run_workflow

    console = Console(highlight=False, soft_wrap=True)
    runs: list[Path] = []
    for seed in range(args.seeds):
        for context in CONTEXTS:
            run = args.output_dir / f"{context}_seed{seed}"
            console.rule(run.name)
            run_workflow(
                [BUNDLE / "active_learning.yaml", *args.overlay],
                bundle_root=str(BUNDLE.parent),
                cohort=args.cohort,
                output_dir=str(run),
                feature_dir=str(args.output_dir / "features"),
                context=context,
                strategy="random",
                oracle="archive",
                rounds=1,
                initial_per_class=None,
                initial_fraction=1.0,
                report=False,
                seed=seed,
                **{name: yaml.safe_load(value) for name, value in args.set},
            )
            runs.append(run)

    parameters = {context: _parameters(args.output_dir / f"{context}_seed0") for context in CONTEXTS}
    per_run, text = context_table(runs, parameters)
    per_run.to_csv(args.output_dir / "context.csv", index=False)
    (args.output_dir / "context.md").write_text(text + "\n", encoding="utf-8")
    console.print(text)


def _parameters(run: Path) -> int:
    from tral_monai.networks.checkpoint import load_checkpoint

    return sum(parameter.numel() for parameter in load_checkpoint(run / "model.pt").parameters())


if __name__ == "__main__":
    main()
