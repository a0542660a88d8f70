# SPDX-License-Identifier: Apache-2.0
"""What of a label file counts for each task: the regions that it answers, and what is set aside.

Only what lies inside an annotated region counts. Annotated regions are

- the rectangle of a submission of a part of a slide, also where nothing was drawn in it;
- a Region shape (:mod:`tral_monai.rounds.regions.region_shapes`), also where nothing was drawn in it;
- in a file of a whole slide, a region that was asked for in which an object of the task's classes lies: at least half
  of the object, or enough of it to cover a tenth of the region. One that a neighbour's outline merely reaches into is
  not answered: nobody has looked at it yet.

Everything else in the file is set aside: counted by class name, listed, and left where it is. An object whose name no
rule fits keeps its place inside an annotated region as ``ignored``, so that it becomes neither background nor a class.

A region that another one of the same file covers was looked at once: it costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.metrics.annotation_cost import AnnotationTime
from tral_monai.rounds.regions.catalog import SlideCatalog
from tral_monai.rounds.regions.class_names import Meaning, meaning
from tral_monai.rounds.regions.covered import covered_answers
from tral_monai.rounds.regions.label_file import Area, LabelFile, LabelObject, polygons_of
from tral_monai.rounds.regions.region import AskedRegion, Purpose, Region, RegionAnswer
from tral_monai.rounds.regions.region_shapes import inner_rectangle
from tral_monai.rounds.regions.settings import Task
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.slides.magnification import level0_per_tile

TISSUE_MINUTES = 1.0
"""Minutes that a tissue region costs: an assumption, by which regions are sized (DESIGN: about a minute each)."""
MAX_NUCLEUS_UM = 100.0
"""An object with a longer side, in micrometres, is no nucleus but an area that has a nucleus class's name."""
_OWN_SHARE, _REGION_SHARE = 0.5, 0.1
_SNAP_PX, _SNAP_SHARE = 2.0, 0.02


class SetAside(NamedTuple):
    """Objects of one class name that do not count, and why."""

    name: str
    objects: int
    why: str


@dataclass(frozen=True)
class TaskSubmission:
    """What a label file says to one task.

    Attributes:
        answers: the regions that it answers.
        set_aside: what does not count.
        unknown_names: class names that no offered task knows.
        problems: what was repaired or left out, one sentence each.
        kept: ids of regions that the file before this one answered, and in which this one holds nothing.
    """

    answers: tuple[RegionAnswer, ...]
    set_aside: tuple[SetAside, ...]
    unknown_names: tuple[str, ...]
    problems: tuple[str, ...]
    kept: tuple[int, ...] = ()


class _Candidate(NamedTuple):
    """A region that may be answered; ``looked_at`` where it is whether or not anything lies in it."""

    region: Region
    purpose: Purpose
    looked_at: bool
    asked: bool


def read_submission(
    file: LabelFile,
    tasks: Mapping[Task, TaskSite],
    asked: Mapping[Task, Sequence[AskedRegion]],
    catalog: SlideCatalog,
    *,
    before: Mapping[Task, Sequence[Region]] | None = None,
) -> dict[Task, TaskSubmission]:
    """What of a label file counts.

    Args:
        file: the label file.
        tasks: the tasks that are offered.
        asked: the regions that each task has asked for, of any slide and round.
        catalog: the slides: says what an answer in a region that nobody asked for is used for.
        before: the regions of each task that the file in whose place this one comes answered.
    """
    of_slide = {task: [one for one in rows if one.region.slide == file.slide] for task, rows in asked.items()}
    problems = list(file.problems)
    looked_at, open_ = _regions_of(file, problems)
    where = _Areas(file.objects)
    names = {one.class_name for one in file.objects}
    meanings = {task: {name: meaning(site, name) for name in names} for task, site in tasks.items()}
    unknown = {name for name in names if all(meanings[task][name].kind == "no rule" for task in tasks)}
    result: dict[Task, TaskSubmission] = {}
    for task, site in tasks.items():
        usable = _usable(task, file, meanings)
        others = [row.region for other in tasks if other != task for row in of_slide[other]]
        used: set[int] = set()
        answers = []
        for candidate in _candidates(of_slide[task], looked_at, open_, catalog):
            rows = where.touching(candidate.region)
            own = [
                row
                for row in rows
                if usable[row] == "" and meanings[task][file.objects[row].class_name].kind == "class"
            ]
            within = [row for row in own if _lies_in(where.areas[row], candidate.region, task)]
            nobodys = not candidate.asked and not any(_same(candidate.region, other) for other in others)
            inside = [row for row in rows if _lies_in(where.areas[row], candidate.region, task)]
            empty = not inside
            if task == "tissue" and not within and any(_is_strange(meanings, file.objects[row]) for row in inside):
                continue  # all that was drawn there has a name that nobody knows: the region stays open
            if within or (candidate.looked_at and (candidate.asked or (nobodys and empty))):
                answer, taken = _answer(
                    site, file, candidate, [row for row in rows if usable[row] == ""], where, meanings
                )
                answers.append(answer)
                used.update(taken)
        aside = _set_aside(task, file, usable, used, meanings, unknown)
        listed = tuple(sorted(str(name) for name in unknown if name))
        covered = covered_answers(answers)
        answers = [
            replace(one, cost_labels=0.0, cost_minutes=0.0) if one.region.id in covered else one for one in answers
        ]
        kept = tuple(
            region.id
            for region in (before or {}).get(task, ())
            if not _is_touched(region, task, [answer.region for answer in answers], where, usable)
        )
        said = [*problems, _kept_problem(len(kept))] if kept else problems
        result[task] = TaskSubmission(tuple(answers), aside, listed, tuple(said), kept)
    return result


def _is_touched(region: Region, task: Task, answered: Sequence[Region], where: _Areas, usable: Sequence[str]) -> bool:
    """Whether a file says anything of a region: it answers one that covers half of it, or has an object in it."""
    half = region.polygon.area / 2
    if any(one.polygon.intersection(region.polygon).area >= half for one in answered):
        return True
    for row in where.touching(region):
        area = where.areas[row]
        assert area is not None
        if usable[row] == "" and _lies_in(area, region, task):
            return True
        # One without a class was left there by whoever removed it; an outline of the whole tissue says nothing.
        if usable[row] != _OTHERS and area.intersection(region.polygon).area >= _OWN_SHARE * area.area:
            return True
    return False


def _is_strange(meanings: Mapping[Task, Mapping[str | None, Meaning]], one: LabelObject) -> bool:
    return all(of_task[one.class_name].kind == "no rule" for of_task in meanings.values())


def _kept_problem(number: int) -> str:
    regions, hold, their = (
        ("1 region", "holds", "its answer is") if number == 1 else (f"{number} regions", "hold", "their answers are")
    )
    return (
        f"{regions} that the label before it answered {hold} nothing in this one; {their} kept (to take them back, "
        "delete the label or submit the region itself)"
    )


# -- regions ----------------------------------------------------------------------------------------------------------


def _regions_of(file: LabelFile, problems: list[str]) -> tuple[list[Region], list[Region]]:
    """Regions that were looked at, and exported rectangles that nobody has touched."""
    if file.roi is not None:
        return [file.roi], []
    looked_at: list[Region] = []
    open_: list[Region] = []
    for shape in file.region_shapes:
        (x, y, width, height), whole = inner_rectangle(shape.outline)
        if width < 1 or height < 1:
            problems.append(f"{shape.shape}: no rectangle fits into this Region; draw it with the rectangle tool")
            continue
        if not whole:
            problems.append(
                f"{shape.shape}: a Region is a rectangle; of this one, the largest rectangle inside counts: "
                f"{[x, y, width, height]}"
            )
        (looked_at if shape.looked_at else open_).append(Region(file.slide, x, y, width, height))
    return looked_at, open_


def _candidates(
    asked: Sequence[AskedRegion], looked_at: Sequence[Region], open_: Sequence[Region], catalog: SlideCatalog
) -> list[_Candidate]:
    """Every region that the file may answer, once: first those that the task asked for."""
    found: dict[int, _Candidate] = {}
    for row in asked:
        seen = any(_same(row.region, one) or _covers(one, row.region) for one in looked_at)
        found[row.region.id] = _Candidate(row.region, row.purpose, seen, True)
    for regions, seen in ((looked_at, True), (open_, False)):
        for region in regions:
            if not any(_same(region, row.region) for row in asked):
                for part, purpose in catalog.parts(region):
                    found.setdefault(part.id, _Candidate(part, purpose, seen, False))
    return list(found.values())


def _same(first: Region, second: Region) -> bool:
    """Whether two rectangles are meant to be one: no side lies further away than a hand's tremble."""
    tolerance = max(_SNAP_PX, _SNAP_SHARE * min(first.width_level0, first.height_level0))
    edges = zip(first.polygon.bounds, second.polygon.bounds, strict=True)
    return all(abs(one - other) <= tolerance for one, other in edges)


def _covers(first: Region, second: Region) -> bool:
    tolerance = max(_SNAP_PX, _SNAP_SHARE * min(second.width_level0, second.height_level0))
    x0, y0, x1, y1 = first.polygon.bounds
    return shapely.box(x0 - tolerance, y0 - tolerance, x1 + tolerance, y1 + tolerance).covers(second.polygon)


# -- objects ----------------------------------------------------------------------------------------------------------


class _Areas:
    """The areas of a file's objects, found by place."""

    def __init__(self, objects: Sequence[LabelObject]) -> None:
        self.areas: list[Area | None] = [one.area for one in objects]
        self._rows: npt.NDArray[np.int64] = np.array(
            [row for row, area in enumerate(self.areas) if area is not None], dtype=np.int64
        )
        self._tree = shapely.STRtree([area for area in self.areas if area is not None])

    def touching(self, region: Region) -> list[int]:
        """Objects that meet a region, in the order of the file."""
        if not len(self._rows):
            return []
        return sorted(self._rows[self._tree.query(region.polygon, predicate="intersects")].tolist())


def _lies_in(area: Area | None, region: Region, task: Task) -> bool:
    assert area is not None
    if task == "nuclei":
        return _holds_centre(area, region)
    shared = area.intersection(region.polygon).area
    return bool(shared > 0 and (shared >= _OWN_SHARE * area.area or shared >= _REGION_SHARE * region.polygon.area))


def _holds_centre(area: Area, region: Region) -> bool:
    centre, (x, y, width, height) = area.centroid, region.bbox_level0
    return bool(x <= centre.x < x + width and y <= centre.y < y + height)  # of two neighbours, one has it


def _usable(task: Task, file: LabelFile, meanings: Mapping[Task, Mapping[str | None, Meaning]]) -> list[str]:
    """Per object, why it cannot be one of the task's, or nothing where it may be."""
    known = meanings[task]
    detected = any(one.object_type in ("detection", "cell") for one in file.objects)
    reasons = []
    for one in file.objects:
        reason, kind = one.why_none, known[one.class_name].kind
        others_know = any(rules[one.class_name].kind == "class" for other, rules in meanings.items() if other != task)
        detection = one.object_type in ("detection", "cell")
        if one.area is None or (kind == "no class" and (task == "tissue" or not detection)):
            reason = reason or "it has no class"
        elif others_know and kind != "class":
            reason = _OTHERS
        elif task == "tissue":
            if detection:
                reason = "a detection; tissue is drawn as annotations"
        elif detected and not detection and kind != "class":
            reason = "an annotation beside detections; of these files, detections are the nuclei"
        elif max(np.subtract(one.area.bounds[2:], one.area.bounds[:2])) * file.mpp > MAX_NUCLEUS_UM:
            reason = f"larger than a nucleus ({MAX_NUCLEUS_UM:g} µm)"
        reasons.append(reason)
    return reasons


_OTHERS = "(another task's)"


def _answer(
    site: TaskSite,
    file: LabelFile,
    candidate: _Candidate,
    rows: Iterable[int],
    where: _Areas,
    meanings: Mapping[Task, Mapping[str | None, Meaning]],
) -> tuple[RegionAnswer, list[int]]:
    """The answer in a region, and the objects in it that count."""
    region, known = candidate.region, meanings[site.name]
    shapes: list[tuple[str, Area]] = []
    taken: list[int] = []
    for row in rows:
        area = where.areas[row]
        assert area is not None
        if site.name == "tissue":
            inside = polygons_of(area.intersection(region.polygon))
        else:
            inside = area if _holds_centre(area, region) else None
        if inside is None:
            continue
        shapes.append((known[file.objects[row].class_name].answer, inside))
        taken.append(row)
    if site.name == "tissue":
        tile = level0_per_tile(file.mpp)
        area_px = sum(area.area for name, area in shapes if name in site.classes)
        labels, minutes = float(round(area_px / tile**2)), TISSUE_MINUTES
    else:
        labels = float(len(shapes))
        classed = sum(name not in (UNKNOWN, IGNORED) for name, _ in shapes)
        minutes = float(AnnotationTime().minutes([labels], [classed])[0])
    return RegionAnswer(region, candidate.purpose, tuple(shapes), labels, minutes), taken


def _set_aside(
    task: Task,
    file: LabelFile,
    usable: Sequence[str],
    used: set[int],
    meanings: Mapping[Task, Mapping[str | None, Meaning]],
    unknown: set[str | None],
) -> tuple[SetAside, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    for row, (one, reason) in enumerate(zip(file.objects, usable, strict=True)):
        kind = meanings[task][one.class_name].kind
        if reason == _OTHERS:
            continue
        if one.area is not None and one.class_name in unknown:
            reason = "no rule for this name"
        elif not reason and kind == "left out":
            reason = "the class map leaves it out"
        elif not reason and kind == "no class" and row in used:
            reason = "it has no class"
        elif not reason and row not in used:
            reason = "outside of every annotated region"
        if reason:
            counts[one.class_name or "(no class)", reason] += 1
    return tuple(SetAside(name, number, why) for (name, why), number in sorted(counts.items()))
