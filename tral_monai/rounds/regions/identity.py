# SPDX-License-Identifier: Apache-2.0
"""What makes a site's ledger the ledger of that site: another task, or other classes, is another run."""

from __future__ import annotations

from typing import Any

from tral_monai.rounds.regions.site import TaskSite


def site_identity(task: TaskSite) -> dict[str, Any]:
    """What ``Ledger.begin`` is given by everyone who opens the ledger of a task to write a query or a training.

    Answers are recorded by class name, so that a ledger with other classes means something else. Everything else
    (strategy, budget, network) may change from round to round.

    Args:
        task: the task's site.
    """
    return {"task": task.name, "classes": list(task.classes)}
