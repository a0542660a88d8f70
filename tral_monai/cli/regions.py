# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai regions STUDIES``: what a round asks for and why; or as GeoJSON, to be annotated in QuPath."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tral_monai.errors import ConfigError, UnknownItemError
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.region import AskedRegion
from tral_monai.rounds.regions.region_geojson import EXPORT_CLIENT, reserve_for_export, write_regions
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.saved_settings import saved_settings
from tral_monai.rounds.regions.settings import TASKS, read_settings
from tral_monai.rounds.regions.site import AnnotationSite, TaskSite

_HOW_TO_CHOOSE = (
    "regions of the current round are chosen when a viewer asks a server for the next sample, or by this command with "
    "--output-dir and neither --round nor --no-prepare"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.description = (
        "Without --output-dir, lists what a round asks for and why, and changes nothing. With it, writes the open "
        "regions as GeoJSON and reserves them."
    )
    parser.epilog = (
        "Draw inside the rectangles in QuPath, export all objects as GeoJSON under the same file name into "
        "STUDIES/labels/final. A rectangle that holds nothing counts once its class is Empty or its name ends in done."
    )
    parser.add_argument("studies", metavar="STUDIES", type=Path, help="folder of the slides")
    parser.add_argument("--task", choices=TASKS, help="which task asks (needed where both are offered)")
    parser.add_argument("--round", type=int, metavar="N", help="the round; the current one by default")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="write the open regions there and reserve them")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of the site's settings")
    parser.add_argument(
        "--conf",
        nargs="+",
        action="append",
        default=[],
        metavar="KEY VALUE",
        help="settings, as for the server; without them and --config, those of the server that ran last",
    )
    parser.add_argument("--all", action="store_true", help="write answered and reserved regions too")
    parser.add_argument(
        "--prepare",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --output-dir, choose regions where none are chosen yet",
    )
    parser.add_argument(
        "--reserve-hours",
        type=float,
        default=24.0,
        metavar="H",
        help="how long a server hands out none of what was written (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """List a round's regions; or take labels in, choose where nothing is chosen, reserve and write.

    Args:
        arguments: from the command's parser.

    Returns:
        0.

    Raises:
        ConfigError: a setting is wrong, the task is not clear, or a file would be written over.
        UnknownItemError: the round has no query, or the task is not offered.
        LedgerError: the rounds were begun with other settings.
    """
    if not 0 < arguments.reserve_hours <= 24 * 365:
        raise ConfigError(f"--reserve-hours must lie between 0 and 8760, but is {arguments.reserve_hours:g}")
    if not arguments.studies.is_dir():
        raise ConfigError(f"there is no folder {arguments.studies}; give the folder of the slides")
    conf = _conf(arguments.config, arguments.conf) or saved_settings(arguments.studies)
    site = AnnotationSite(arguments.studies, read_settings(conf))
    task = site.task(arguments.task or _only_task(site))
    console = Console(highlight=False)
    if arguments.output_dir is None:
        _list(task, arguments.round, console)
    else:
        _export(task, arguments, console)
    return 0


def _list(task: TaskSite, wanted: int | None, console: Console) -> None:
    if not (task.folder / "ledger.sqlite").is_file():
        raise UnknownItemError(f"no regions were chosen for {task.name} yet; {_HOW_TO_CHOOSE}")
    with contextlib.closing(task.ledger()) as ledger:
        asked = ledger.asked(_round(task, ledger, wanted, prepare=False))
    _show(task, asked, set(), console)


def _export(task: TaskSite, arguments: argparse.Namespace, console: Console) -> None:
    report = sync_labels(task.site)[task.name]
    if report.changed or report.problems:
        console.print(escape(report.message), soft_wrap=True)
    with contextlib.closing(task.ledger()) as ledger:
        round_ = _round(task, ledger, arguments.round, prepare=arguments.prepare)
        held = reserve_for_export(task, ledger, round_, seconds=arguments.reserve_hours * 3600)
        asked = ledger.asked(round_)
    there = task.catalog.entries()
    chosen = [one for one in asked if one.region.slide in there] if arguments.all else held
    files = write_regions(task, chosen, arguments.output_dir)
    _show(task, asked, {one.region.id for one in chosen}, console)
    if not files:
        console.print(f"Nothing of round {round_} is open, so nothing was written. Train for the next round.")
        return
    regions = "1 region" if len(chosen) == 1 else f"{len(chosen)} regions"
    console.print(f"{regions}, in {arguments.output_dir}:", markup=False, soft_wrap=True)
    for path in files:
        console.print(f"  {path.name}", markup=False, soft_wrap=True)
    console.print(
        f"A server hands out none of the open ones for {arguments.reserve_hours:g} hours. Once annotated, put the "
        f"files into {task.site.labels_dir}",
        markup=False,
        soft_wrap=True,
    )


def _only_task(site: AnnotationSite) -> str:
    if len(site.tasks) > 1:
        tasks = " or ".join(f"--task {name}" for name in site.tasks)
        raise ConfigError(f"this site offers {' and '.join(site.tasks)}; say which one is meant: {tasks}")
    return next(iter(site.tasks))


def _show(task: TaskSite, asked: Sequence[AskedRegion], written: set[int], console: Console) -> None:
    console.print(_table(asked, written, f"{task.name}, round {asked[0].round}"))
    for one in asked:
        console.print(f"  {one.rank + 1}: {one.reason}", markup=False, soft_wrap=True)


def _conf(config: Path | None, words: Sequence[Sequence[str]]) -> dict[str, str]:
    flat = [word for group in words for word in group]
    if len(flat) % 2:
        raise ConfigError(f"--conf takes pairs of a key and a value, but {flat[-1]!r} is left over")
    conf = dict(zip(flat[::2], flat[1::2], strict=True))
    return conf if config is None else {**conf, "config": str(config)}


def _round(task: TaskSite, ledger: RegionLedger, wanted: int | None, *, prepare: bool) -> int:
    round_ = ledger.round if wanted is None else wanted
    if not ledger.asked(round_) and prepare and round_ == ledger.round:
        from tral_monai.rounds.regions.query import prepare_query  # torch comes with it

        round_ = prepare_query(task)
    if not ledger.asked(round_):
        rounds = sorted({one.round for one in ledger.asked()})
        raise UnknownItemError(
            f"no regions were chosen for round {round_} of {task.name} (rounds with regions: "
            f"{', '.join(map(str, rounds)) or 'none'}); {_HOW_TO_CHOOSE}"
        )
    return round_


def _table(asked: Sequence[AskedRegion], written: set[int], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for column in ("no.", "slide", "region", "class", "score", "state"):
        table.add_column(column, overflow="fold")
    for one in asked:
        table.add_row(
            str(one.rank + 1),
            escape(one.region.slide),
            ", ".join(map(str, one.region.bbox_level0)),
            escape(one.class_asked or "-") + (" (held out)" if one.purpose == "val" else ""),
            f"{one.score:.3f}",
            _state(one, written),
        )
    return table


def _state(one: AskedRegion, written: set[int]) -> str:
    if one.answered:
        return "answered"
    if one.reserved_by == EXPORT_CLIENT:
        return "written" if one.region.id in written else "exported before"
    if one.reserved_by is not None and one.reserved_until > time.time():
        until = time.strftime("%H:%M", time.localtime(one.reserved_until))
        return escape(f"reserved by {one.reserved_by} until {until}")
    return "open"
