# SPDX-License-Identifier: Apache-2.0
"""A progress bar on the terminal for work that reports (done, total)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, to do)."""


def progress_bar(description: str) -> Progress:
    """A callback that shows a bar with count, speed and time left; the bar goes away when the work is done.

    Args:
        description: what is being done, such as ``"features"``.

    Returns:
        A function of (done, total). Nothing is drawn where standard error is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bars: list[Bar] = []
    console = Console(stderr=True)

    def update(done: int, total: int) -> None:
        if not console.is_terminal:  # rich would leave an empty line in a log for every bar
            return
        if not bars:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            bars.append(Bar(*columns, console=console, transient=True))
            bars[0].add_task(description, total=total)
            bars[0].start()
        bars[0].update(bars[0].task_ids[0], completed=done, total=total)
        if done >= total:
            bars.pop().stop()

    return update
