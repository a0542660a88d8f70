# SPDX-License-Identifier: Apache-2.0
"""Calibrate exit gates for several models and several promises, and tabulate what each gate saves and changes.

Calibration is the bundle's early_exit.yaml. Writes gates.csv (one row per model, promise and split) and gates.md (over
the models: mean and standard deviation of shares and F1, sums of tiles).
"""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", required=True, help="the cohort's CSV")
    parser.add_argument("--checkpoints", nargs="+", type=Path, required=True, help="models, such as one for each seed")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--feature-dir", default=None, help="features of the run that made the models")
    parser.add_argument("--max-disagreement", nargs="+", type=float, default=[0.005, 0.01, 0.02, 0.05])
    parser.add_argument("--allow-patient-overlap", action="store_true")
    args = parser.parse_args()

    import pandas as pd

    from tral_monai.inference.early_exit import ExitGate
    from tral_monai.report.exit_gate_table import exit_gate_table
    from tral_monai.rounds.bundle_run import run_workflow

    args.output_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, checkpoint in enumerate(args.checkpoints):
        for allowed in args.max_disagreement:
            path = args.output_dir / f"{number}_{allowed:g}.pt"
            run_workflow(
                [BUNDLE / "configs" / "early_exit.yaml"],
                bundle_root=str(BUNDLE),
                cohort=args.cohort,
                allow_patient_overlap=args.allow_patient_overlap,
                checkpoint=str(checkpoint),
                gate=str(path),
                output_dir=str(args.output_dir),
                feature_dir=args.feature_dir,
                max_disagreement=allowed,
            )
            gate = ExitGate.load(path)
            model = {"model": number, "max_disagreement": allowed, "threshold": gate.threshold}
            rows += [{**model, **row} for row in gate.calibration["splits"]]
    table = pd.DataFrame(rows)
    table.to_csv(args.output_dir / "gates.csv", index=False)
    text = exit_gate_table(table)
    (args.output_dir / "gates.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
