# SPDX-License-Identifier: Apache-2.0
"""Label files taken into the ledgers: what is new or changed is read, what was deleted is forgotten.

Label files are those in ``<studies>/labels/final`` (``.xml``, ``.geojson``, ``.json``, also packed as ``.gz``) that are
called after a slide or a region of it, and ``<slide id>.geojson`` beside a slide. The ledgers decide; a small JSON of
file times beside them only saves reading files again. A file that was written again is read again, also with the same
content: it may answer what was asked since.

A viewer sends everything that it knows of a slide in place of what was sent before, and two people who annotate the
same slide know different things. So where an ASAP XML takes the place of another one, a region that the earlier one
answered stays answered as it was if there is nothing in it now. It is replaced if the new file answers it or has an
object in it, and forgotten with the deletion of the file.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import AnnotationError, TralError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.regions.catalog import SlideEntry, SlideListing
from tral_monai.rounds.regions.identity import check_identity
from tral_monai.rounds.regions.label_file import LABEL_SUFFIXES, LabelFile, label_stem, read_label_file
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.region_ledger import RegionLedger, submitted_file
from tral_monai.rounds.regions.settings import Task
from tral_monai.rounds.regions.site import AnnotationSite
from tral_monai.rounds.regions.submission import SetAside, TaskSubmission, read_submission
from tral_monai.rounds.regions.waiting_lock import waiting_lock

SET_ASIDE_NAME = "set_aside.csv"
"""The list, in a task's folder, of what does not count in any label file."""
_VERSION = 2  # of the reading; a change reads every file again
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class SyncReport:
    """What a look at the label files changed for one task.

    Attributes:
        task: the task.
        regions_answered: regions that the new and changed files answer.
        labels: labels in them: tiles, or nuclei.
        set_aside: how many objects of which class name in them do not count.
        unknown_names: class names in them that no task knows.
        problems: what was repaired or left out in them, and every file that cannot be read at all.
        changed: files that were taken in or forgotten, relative to the studies' folder.
        classes: the classes that the task learns.
    """

    task: Task
    regions_answered: int = 0
    labels: float = 0.0
    set_aside: Mapping[str, int] = field(default_factory=dict)
    unknown_names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What an annotator should know, in a few sentences."""
        if not self.changed:
            text = f"{self.task}: nothing new."
        else:
            regions = "1 region" if self.regions_answered == 1 else f"{self.regions_answered} regions"
            noun = "tiles" if self.task == "tissue" else "nuclei"
            text = f"{self.task}: {regions} answered, {noun}: {self.labels:.0f}."
        if self.set_aside:
            names = ", ".join(f"{number} '{name}'" for name, number in self.set_aside.items())
            text += f" Set aside: {names} (see {SET_ASIDE_NAME})."
        if self.unknown_names:
            names = ", ".join(f"'{name}'" for name in self.unknown_names)
            text += (
                f" No rule for the class {names}: correct the name, or add it to the class map (classes here: "
                f"{', '.join(self.classes)})."
            )
        if self.problems:
            text += f" {len(self.problems)} problem{'s' * (len(self.problems) > 1)}: {self.problems[0]}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The report and its message as plain Python objects."""
        return {**dataclasses.asdict(self), "message": self.message}


@dataclass(frozen=True)
class _Found:
    source: str
    path: Path
    image: str
    stamp: list[int]


def check_submission(site: AnnotationSite, image: str, path: Path, *, name: str = "") -> LabelFile:
    """Read a label file before it is stored.

    Args:
        site: the site.
        image: the slide, or the uploaded picture of a region of it.
        path: the file.
        name: what messages call it; its own name where not given.

    Raises:
        UnknownItemError: there is no such slide.
        SlideError: the slide cannot be opened, or has no mpp.
        AnnotationError: the file's kind is not supported, it is malformed, or nothing in it can be used.
    """
    if label_stem(path.name) is None:
        raise AnnotationError(
            f"expected a label file that ends in {', '.join(LABEL_SUFFIXES)} (or that and .gz), but "
            f"'{name or path.name}' came; submit ASAP XML or QuPath GeoJSON"
        )
    file = read_label_file(path, site.catalog, image, name=name)
    usable = any(one.area is not None for one in file.objects) or file.region_shapes
    if file.roi is None and not usable:
        reasons = f" ({file.problems[0]})" if file.problems else ""
        raise AnnotationError(
            f"nothing in the labels of {file.slide} has an area on the slide{reasons}; draw areas and give them a "
            "class, or submit a rectangle in which nothing is to be found as a region"
        )
    return file


def sync_labels(site: AnnotationSite, *, client: str = "", submitted: str = "") -> dict[Task, SyncReport]:
    """Bring the ledgers in line with the label files.

    A file that cannot be read leaves what it said before, and is reported each time. Files of slides that are gone, and
    all of them where the labels' folder is gone, are left as they are. One thread of one process does this at a time;
    others wait.

    Args:
        site: the site.
        client: who sent what is new.
        submitted: a file, relative to the studies' folder, that the client has just sent: it is read and reported also
            where somebody else's look has come upon it first.

    Returns:
        What changed, by task.

    Raises:
        BusyError: another process has been at it for a minute.
        LedgerError: the ledgers were begun with other settings, such as other classes; nothing is changed.
        OutputError: nothing can be written beside the ledgers.
    """
    busy = "label files are being taken in already"
    with waiting_lock(site.folder / "intake", patience_s=_PATIENCE_S, busy=busy), contextlib.ExitStack() as stack:
        ledgers = {name: stack.enter_context(contextlib.closing(task.ledger())) for name, task in site.tasks.items()}
        for name, ledger in ledgers.items():
            check_identity(site.tasks[name], ledger)
        return _Intake(site, ledgers, client, submitted).run()


class _Intake:
    def __init__(self, site: AnnotationSite, ledgers: Mapping[Task, RegionLedger], client: str, submitted: str) -> None:
        self._site, self._ledgers, self._client, self._submitted = site, ledgers, client, submitted
        self._state_path = site.folder / "intake" / "files.json"
        self._state = _load(self._state_path)
        self._rules = _rules(site)
        self._entries = site.catalog.entries()
        self._known = {task: ledger.submissions() for task, ledger in ledgers.items()}
        self._changed: list[str] = []
        self._problems: list[str] = []
        self._read: dict[str, dict[Task, TaskSubmission]] = {}
        self._dirty = False

    def run(self) -> dict[Task, SyncReport]:
        found = sorted(_label_files(self._site, self._entries), key=lambda one: (one.stamp[1], one.source))
        for one in found:
            self._look_at(one)
        if self._site.labels_dir.is_dir():
            self._forget_deleted({one.source for one in found})
        elif any(self._known.values()):
            folder = self._site.labels_dir.relative_to(self._site.studies)
            self._problems.append(f"the folder {folder} is gone; what was submitted is kept")
        if self._dirty:
            self._save()
        return {task: self._report(task) for task in self._site.tasks}

    def _look_at(self, one: _Found) -> None:
        before = self._state.get(one.source, {})
        same_rules = before.get("rules") == self._rules
        same = same_rules and before.get("stamp") == one.stamp
        if same and one.source != self._submitted and self._is_recorded(one.source, before):
            if before.get("error"):
                self._problems.append(before["error"])
            return
        state: dict[str, Any] = {"stamp": one.stamp, "rules": self._rules}
        try:
            state["sha256"] = file_sha256(one.path)
            file = read_label_file(one.path, self._site.catalog, one.image)
            asked = {task: ledger.asked() for task, ledger in self._ledgers.items()}
            replaced = self._answered_before(one.source, state["sha256"])
            said = read_submission(file, self._site.tasks, asked, self._site.catalog, before=replaced)
        except AnnotationError as error:
            # It says the same until it changes; what it said before stays in the ledgers.
            self._keep(one.source, {**before, **state, "error": str(error)})
            self._problems.append(str(error))
            return
        except (TralError, OSError) as error:  # no slide, a slide that cannot be opened: may be mended without the file
            kept = "; what it said before is kept" if any(one.source in known for known in self._known.values()) else ""
            self._problems.append(f"{one.source}: {error}{kept}")
            return
        for task, submission in said.items():
            self._ledgers[task].record_submission(
                one.source,
                sha256=state["sha256"],
                slide=file.slide,
                client=self._client,
                answers=submission.answers,
                set_aside=_sums(submission.set_aside),
                problems=submission.problems,
                keep=submission.kept,
            )
        aside = {task: [list(row) for row in submission.set_aside] for task, submission in said.items()}
        self._keep(one.source, {**state, "slide": file.slide, "set_aside": aside})
        self._read[one.source] = said
        self._changed.append(one.source)

    def _answered_before(self, source: str, sha256: str) -> dict[Task, list[Region]]:
        """Regions that stay answered, where a file is not the one that it was, unless it says something of them."""
        if not source.lower().endswith((".xml", ".xml.gz")):
            return {}
        before = {}
        for task, ledger in self._ledgers.items():
            own, kept = ledger.answered_by(source)
            known = self._known[task].get(source)
            before[task] = kept if known is None or known.sha256 == sha256 else [*own, *kept]
        return before

    def _is_recorded(self, source: str, state: Mapping[str, Any]) -> bool:
        """Whether every ledger holds what a file said, or the file cannot be read anyway."""
        if state.get("error"):
            return True
        return all(source in known and known[source].sha256 == state.get("sha256") for known in self._known.values())

    def _forget_deleted(self, there: set[str]) -> None:
        gone = {submitted_file(name): row.slide for known in self._known.values() for name, row in known.items()}
        for source, slide in gone.items():
            if source not in there and slide in self._entries:
                for ledger in self._ledgers.values():
                    ledger.forget_submission(source)
                self._changed.append(source)
        for source in [source for source in self._state if source not in there]:
            if self._state[source].get("slide") in (None, *self._entries):
                del self._state[source]
                self._dirty = True

    def _keep(self, source: str, state: dict[str, Any]) -> None:
        if state != self._state.get(source):
            self._state[source] = state
            self._dirty = True

    def _save(self) -> None:
        for task, site in self._site.tasks.items():
            with (
                atomic_path(site.folder / SET_ASIDE_NAME) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as stream,
            ):
                writer = csv.writer(stream)
                writer.writerow(("file", "slide", "class", "objects", "why"))
                for source in sorted(self._state):
                    slide = self._state[source].get("slide", "")
                    for name, objects, why in self._state[source].get("set_aside", {}).get(task, ()):
                        writer.writerow((source, slide, name, objects, why))
        # Last: where this is not reached, the files are read again.
        with atomic_path(self._state_path) as temporary:
            temporary.write_text(json.dumps(self._state), encoding="utf-8")

    def _report(self, task: Task) -> SyncReport:
        said = [submissions[task] for submissions in self._read.values()]
        answers = [answer for submission in said for answer in submission.answers]
        names = {name for submission in said for name in submission.unknown_names}
        own = (problem for submission in said for problem in submission.problems)
        return SyncReport(
            task=task,
            regions_answered=len({answer.region.id for answer in answers}),
            labels=sum(answer.cost_labels for answer in answers),
            set_aside=_sums(row for submission in said for row in submission.set_aside),
            unknown_names=tuple(sorted(names)),
            problems=tuple(dict.fromkeys((*own, *self._problems))),
            changed=tuple(self._changed),
            classes=self._site.tasks[task].classes,
        )


def _label_files(site: AnnotationSite, entries: Mapping[str, SlideEntry]) -> Iterator[_Found]:
    """Every label file; of those beside the slides, the ones that are called after one."""
    areas = {entry.areas.resolve() for entry in entries.values() if entry.areas is not None}
    listing = SlideListing(entries)
    ids = {name for entry in entries.values() for name in (entry.id, listing.client_id(entry.name))}
    for folder in (site.labels_dir, site.studies):
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            image = label_stem(path.name)
            if image is None or (folder == site.studies and (image not in ids or ".geojson" not in path.name.lower())):
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # deleted since, or a link to nothing
                continue
            if path.is_file() and path.resolve() not in areas:
                source = path.relative_to(site.studies).as_posix()
                yield _Found(source, path, image, [stat.st_size, stat.st_mtime_ns, stat.st_ino])


def _rules(site: AnnotationSite) -> str:
    """A hash of what the meaning of a file hangs on besides the file: a new rule reads every file again."""
    maps = {name: task.class_map.to_dict() for name, task in site.tasks.items()}
    return hashlib.sha256(json.dumps([_VERSION, maps], sort_keys=True).encode()).hexdigest()


def _sums(rows: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        assert isinstance(row, SetAside)
        counts[row.name] = counts.get(row.name, 0) + row.objects
    return counts


def _load(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # the first time, or damaged: files are read again
        return {}
    return content if isinstance(content, dict) else {}
