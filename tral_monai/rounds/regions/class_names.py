# SPDX-License-Identifier: Apache-2.0
"""What a class name in a label file means to a task: a class, another kind of nucleus, or nothing that it knows."""

from __future__ import annotations

import difflib
import re
from typing import Literal, NamedTuple

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.rounds.regions.site import TaskSite

_UNKNOWN_NAMES = ("unknown", "other", "others")
_CLOSE = 0.75  # of difflib's ratio: "lymphocyt" and "Lymphocytes" for "lymphocyte", but not "monocyte" (0.67)
_UNNAMED = re.compile(r"value \d+")  # what a label map's values without a name are called
_IGNORED_NAMES = ("ignored", "ignore", "ignore*")

Kind = Literal["class", "ignored", "left out", "no rule", "no class"]


class Meaning(NamedTuple):
    """``class``: what counts as an object of the task; ``left out`` and ``ignored``: the lab or the annotator says so;
    ``no rule``: nobody knows the name; ``no class``: the object has none. ``answer`` is what a shape is called."""

    kind: Kind
    answer: str


def meaning(task: TaskSite, name: str | None) -> Meaning:
    """What a class name means to a task.

    For nuclei, a name like ``unknown`` or ``other`` that is no class is an unknown nucleus. So is any other name at a
    site of nuclei alone without a class map, for in an open set every class that is not asked for is unknown; but not
    a name that looks like a slip of the pen in a class's name.

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
    if plain in _IGNORED_NAMES:
        return Meaning("ignored", IGNORED)
    if task.name == "nuclei" and (plain in _UNKNOWN_NAMES or _is_another_kind(task, name)):
        return Meaning("class", UNKNOWN)
    return Meaning("no rule", IGNORED)


def close_class(task: TaskSite, name: str) -> str | None:
    """The class whose name a name was probably meant to be, or None."""
    plain = {known.casefold(): known for known in task.classes}
    found = difflib.get_close_matches(name.strip().casefold(), plain, n=1, cutoff=_CLOSE)
    return plain[found[0]] if found else None


def _is_another_kind(task: TaskSite, name: str) -> bool:
    alone = len(task.site.tasks) == 1 and task.settings.class_map is None
    return alone and not _UNNAMED.fullmatch(name) and close_class(task, name) is None
