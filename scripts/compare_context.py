# SPDX-License-Identifier: Apache-2.0
"""Train with tile context and with dense context on the same labels, over several seeds, and tabulate both.

Every training is an ordinary run folder that labels all of `train` at once, so an interrupted comparison goes on where
it was. Writes context.csv (one row per run and split) and context.md (mean and standard deviation over seeds, and the
paired difference).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification" / "configs"
CONTEXTS = ("tile", "dense")


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

    per_run, text = tabulate(runs)
    per_run.to_csv(args.output_dir / "context.csv", index=False)
    (args.output_dir / "context.md").write_text(text + "\n", encoding="utf-8")
    console.print(text)


def tabulate(runs: list[Path]) -> tuple[pd.DataFrame, str]:
    """One row per run and split, and a Markdown table with one row per split and context and their difference."""
    from tral_monai.networks.checkpoint import load_checkpoint
    from tral_monai.report.strategy_table import strategy_table

    parts = [strategy_table(runs, split=split)[0].assign(split=split) for split in ("val", "test")]
    table = pd.concat(parts, ignore_index=True).drop(columns="area").rename(columns={"strategy": "context"})
    parameters = {run.name.split("_")[0]: _parameters(load_checkpoint(run / "model.pt")) for run in runs}
    table.insert(3, "parameters", table["context"].map(parameters))
    scores = [str(name) for name in table if str(name).endswith("_f1") or str(name).startswith("f1_")]
    titles = ["split", "context", "seeds", "labels", "parameters", *(name.removesuffix("_f1") for name in scores)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for split, rows in table.groupby("split", sort=False):
        of = {context: rows[rows["context"] == context].set_index("seed")[scores] for context in CONTEXTS}
        for context in CONTEXTS:
            first = f"| {split} | {context} | {len(of[context])} | {rows['labels'].iloc[0]} | {parameters[context]:,} |"
            lines.append(first + _cells(of[context], signed=False))
        lines.append(f"| {split} | dense - tile, by seed | {len(of['dense'])} | | |")
        lines[-1] += _cells(of["dense"] - of["tile"], signed=True)
    return table, "\n".join(lines)


def _cells(scores: pd.DataFrame, *, signed: bool) -> str:
    sign = "+" if signed else ""
    pairs = zip(100 * scores.mean(), 100 * scores.std(ddof=1), strict=True)
    return "".join(f" {mean:{sign}.1f} ± {deviation:.1f} |" for mean, deviation in pairs)


def _parameters(network: object) -> int:
    import torch

    assert isinstance(network, torch.nn.Module)
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
