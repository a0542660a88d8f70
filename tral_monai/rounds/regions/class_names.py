# SPDX-License-Identifier: Apache-2.0
"""What a class name in a label file means to a task: a class, another kind of nucleus, or nothing that it knows."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.rounds.regions.site import TaskSite

_UNKNOWN_NAMES = ("unknown", "other", "others")
_IGNORED_NAMES = ("ignored", "ignore", "ignore*")

Kind = Literal["class", "ignored", "left out", "no rule", "no class"]


class Meaning(NamedTuple):
    """``class``: what counts as an object of the task; ``left out`` and ``ignored``: the lab or the annotator says so;
    ``no rule``: nobody knows the name; ``no class``: the object has none. ``answer`` is what a shape is called."""

    kind: Kind
    answer: str


def meaning(task: TaskSite, name: str | None) -> Meaning:
    """What a class name means to a task.

    For nuclei, a name like ``unknown`` or ``other`` that is no class is an unknown nucleus.

    Args:
        task: the task.
        name: the class name as the annotator wrote it.
    """
    if not name:
        return Meaning("no class", IGNORED)
    for rule in task.class_map.rules:
        if rule.fits(name):
            return Meaning("left out", IGNORED) if rule.class_name is None else Meaning("class", rule.class_name)
    plain = name.strip().casefold()
    if task.name == "nuclei" and plain in _UNKNOWN_NAMES:
        return Meaning("class", UNKNOWN)
    return Meaning("ignored" if plain in _IGNORED_NAMES else "no rule", IGNORED)
