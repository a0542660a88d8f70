# SPDX-License-Identifier: Apache-2.0
"""What a run came to, in a few lines for the morning after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tral_monai.inference.slide_writer import SlideResult

_MOST_NAMES = 10


def run_summary(results: Sequence[SlideResult], total: int) -> list[str]:
    """Tell how many slides were done, which failed, and what deserves a look.

    Args:
        results: of the slides that the run came to.
        total: slides that it was given.

    Returns:
        One line or more.
    """
    counts = {status: sum(r.status == status for r in results) for status in ("mapped", "kept", "failed")}
    line = f"{counts['mapped']} mapped, {counts['kept']} kept from earlier runs, {counts['failed']} failed"
    lines = [f"{len(results)} of {total} slides: {line}"]
    lines += _named("failed", results, lambda r: r.status == "failed")
    good = [r for r in results if r.status != "failed"]
    lines += _named("nothing to look at (no tissue?)", good, lambda r: _tiles(_found(r)) == 0)
    lines += _named("not analysed in part, because it cannot be decoded", good, lambda r: lost_tiles(r) > 0)
    if len(results) < total:
        lines.append("the run ended early; the same command goes on where it stopped")
    return lines


def lost_tiles(result: SlideResult) -> int:
    """Tiles of a slide that could not be decoded."""
    return int(_found(result).get("not_analysed", {}).get("tiles", 0))


def _found(result: SlideResult) -> dict[str, Any]:
    found: dict[str, Any] = result.record.get("result", {})
    return found


def _tiles(found: dict[str, Any]) -> int | None:
    tiles = found.get("tissue_tiles", found.get("tiles"))
    return tiles if isinstance(tiles, int) else None


def _named(what: str, results: Sequence[SlideResult], chosen: Callable[[SlideResult], bool]) -> list[str]:
    names = [result.name for result in results if chosen(result)]
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return [f"{what}: {', '.join(names[:_MOST_NAMES])}{more}"]
