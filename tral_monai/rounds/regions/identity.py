# SPDX-License-Identifier: Apache-2.0
"""What makes a site's ledger the ledger of that site: another task, or other classes, is another run."""

from __future__ import annotations

from typing import Any

from tral_monai.errors import LedgerError
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.site import TaskSite


def site_identity(task: TaskSite) -> dict[str, Any]:
    """What ``Ledger.begin`` is given by everyone who opens the ledger of a task to write a query or a training.

    Answers are recorded by class name, so that a ledger with other classes means something else. Everything else
    (strategy, budget, network) may change from round to round.

    Args:
        task: the task's site.
    """
    return {"task": task.name, "classes": list(task.classes)}


def check_identity(task: TaskSite, ledger: RegionLedger) -> None:
    """Make sure that a ledger is that of the task as it is set up now, before anything is written to it.

    Args:
        task: the task's site.
        ledger: its ledger. One that nothing was asked from yet is anybody's.

    Raises:
        LedgerError: it was begun with other settings; the message names them.
    """
    recorded, now = ledger.info(), site_identity(task)
    if "identity" not in recorded:
        return
    differences = [f"{key}: {recorded.get(key)!r}, now {now[key]!r}" for key in now if recorded.get(key) != now[key]]
    if differences:
        raise LedgerError(
            f"the {task.name} rounds in {task.folder} were begun with other settings ({'; '.join(differences)}); "
            "nothing was changed. Give the same settings again, or another output_dir to start anew"
        )
