# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai fields consep DIR``: what is in a data set of annotated nuclei, and what is wrong with it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tral_monai.annotations.nuclei.data_sets import DATASETS, OPEN_SETS, read_fields
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.cut import common_mpp
from tral_monai.data.nuclei.field_check import check_fields
from tral_monai.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.epilog = "The exit status is 1 where a field had to be left out. Problems are listed below the tables."
    parser.add_argument("dataset", choices=DATASETS, metavar="DATASET", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("dataset_dir", metavar="DIR", help="the data set's folder; for coco the JSON file will do")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel, where the data set does not say")
    parser.add_argument("--class-level", metavar="NAME", help="level of the class names, where there are several")
    parser.add_argument("--box-um", type=float, metavar="UM", help="side of the boxes, where there are only centres")
    parser.add_argument(
        "--known", nargs="+", metavar="CLASS", help="known classes of a setting of your own, beside the named ones"
    )
    parser.add_argument("--no-images", action="store_true", help="look at the annotations alone")


def run(arguments: argparse.Namespace) -> int:
    """Read, check, print.

    Args:
        arguments: from the command's parser.

    Returns:
        1 where a field was left out, else 0.
    """
    logging.getLogger("tral_monai").addHandler(logging.NullHandler())  # the list at the end says it all, once
    unread: list[str] = []
    fields = read_fields(
        arguments.dataset,
        arguments.dataset_dir,
        mpp=arguments.mpp,
        class_level=arguments.class_level,
        box_um=arguments.box_um,
        problems=unread,
    )
    kept, problems = check_fields(fields, images=not arguments.no_images)
    settings = dict(OPEN_SETS.get(arguments.dataset, {}))
    if arguments.known:
        settings["yours"] = tuple(arguments.known)
    console = Console(highlight=False)
    console.print(_overview(kept))
    console.print(_classes(kept))
    if settings:
        console.print(_open_sets(kept, settings))
    problems = [*unread, *problems, *_before_a_run(kept, settings.get("yours", ()))]
    console.print("No problems." if not problems else f"[bold]Problems ({len(problems)})[/bold]")
    for line in problems:
        console.print(f"  {escape(line)}", soft_wrap=True)
    return 1 if unread or len(kept) < len(fields) else 0


def _before_a_run(fields: Sequence[NucleusField], known: Sequence[str]) -> list[str]:
    """What would end an active-learning run on these fields before it begins."""
    found = []
    occurring = sorted(
        {name for field in fields for name, off in zip(field.classes, field.ignored, strict=True) if not off}
    )
    for name in known:
        if name not in occurring:
            found.append(f"no nucleus has the class '{name}' of --known; there are {occurring}")
    try:
        common_mpp(fields)
    except ConfigError as error:
        found.append(f"{error}, such as --fov_mpp {max(field.mpp for field in fields):g} of a run")
    return found


def _overview(fields: Sequence[NucleusField]) -> Table:
    table = Table(title="Fields", title_justify="left", show_header=False)
    sizes = sorted({(field.width_px, field.height_px) for field in fields}, key=lambda size: size[0] * size[1])
    smallest, largest = (f"{width} x {height} px" for width, height in (sizes[0], sizes[-1]))
    mpps = sorted({round(field.mpp, 4) for field in fields})
    area_mm2 = sum(field.width_px * field.height_px * field.mpp**2 for field in fields) / 1e6
    rows = {
        "fields": f"{len(fields):,} ({area_mm2:.2f} mm²)",
        "size": smallest if len(sizes) == 1 else f"{smallest} to {largest}",
        "mpp": f"{mpps[0]:g}" if len(mpps) == 1 else f"{mpps[0]:g} to {mpps[-1]:g}",
    }
    for name in ("slide", "patient", "hospital"):
        names = {getattr(field, name) for field in fields} - {None}
        rows[f"{name}s"] = f"{len(names):,}" if names else "not known"
    rows["nuclei"] = f"{sum(len(field) for field in fields):,}"
    rows["fields without a nucleus"] = f"{sum(not len(field) for field in fields):,}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _classes(fields: Sequence[NucleusField]) -> Table:
    table = Table("class", title="Nuclei (median box sides in µm)", title_justify="left")
    for column in ("nuclei", "share", "fields", "box", "smallest side"):
        table.add_column(column, justify="right")
    names = np.array([name for field in fields for name in field.classes], dtype=object)
    ignored = np.concatenate([field.ignored for field in fields])
    sides_px = np.concatenate([field.boxes_px[:, 2:] - field.boxes_px[:, :2] for field in fields])
    sides_um = np.concatenate([(field.boxes_px[:, 2:] - field.boxes_px[:, :2]) * field.mpp for field in fields])
    owner = np.repeat(np.arange(len(fields)), [len(field) for field in fields])
    present = sorted(set(names[~ignored]), key=lambda name: (-int((names[~ignored] == name).sum()), name))
    total = int((~ignored).sum())
    for name in present:
        own = (names == name) & ~ignored
        _class_row(table, escape(str(name)), own, sides_um, sides_px, owner, f"{own.sum() / total:.1%}")
    if ignored.any():
        _class_row(table, "(ignored)", ignored, sides_um, sides_px, owner, "")
    table.add_section()
    table.add_row("all but ignored", f"{total:,}", "", "", "", "")
    return table


def _class_row(
    table: Table,
    name: str,
    own: npt.NDArray[np.bool_],
    sides_um: npt.NDArray[np.float32],
    sides_px: npt.NDArray[np.float32],
    owner: npt.NDArray[np.int64],
    share: str,
) -> None:
    width, height = np.median(sides_um[own], axis=0)
    table.add_row(
        name,
        f"{int(own.sum()):,}",
        share,
        f"{len(set(owner[own].tolist())):,}",
        f"{width:.1f} x {height:.1f}",
        f"{sides_px[own].min():.1f} px",
    )


def _open_sets(fields: Sequence[NucleusField], settings: dict[str, tuple[str, ...]]) -> Table:
    """Per setting the share of unknown nuclei, and how like the known count ranks fields to the total count."""
    table = Table("setting", title="Open-set settings", title_justify="left")
    for column in ("known classes", "unknown classes"):
        table.add_column(column)
    for column in ("unknown", "fields mostly unknown", "rank correlation"):
        table.add_column(column, justify="right")
    told = [[name for name, off in zip(field.classes, field.ignored, strict=True) if not off] for field in fields]
    present = {name for names in told for name in names}
    for setting, known in settings.items():
        counts = np.array([[sum(name in known for name in names), len(names)] for names in told], dtype=np.int64)
        wanted, total = counts[:, 0], counts[:, 1]
        absent = [name for name in known if name not in present]
        table.add_row(
            escape(setting),
            escape(", ".join(known)) + (f" (absent: {escape(', '.join(absent))})" if absent else ""),
            escape(", ".join(sorted(present - set(known)))) or "none",
            f"{1 - wanted.sum() / total.sum():.1%}" if total.sum() else "-",
            f"{int((2 * wanted < total).sum())} of {len(fields)}",
            _rank_correlation(wanted, total),
        )
    table.caption = (
        "Rank correlation (Spearman) of known and total nuclei over the fields: near 1, asking for busy fields is as "
        "good as asking for known nuclei."
    )
    table.caption_justify = "left"
    return table


def _rank_correlation(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> str:
    from scipy.stats import spearmanr

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return "-"
    return f"{float(spearmanr(first, second).statistic):.2f}"
