# SPDX-License-Identifier: Apache-2.0
"""The fields of view of one run: cut once from a data set, kept in the run's folder, divided into train and test."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.atomic_file import atomic_path
from tral_monai.data.nuclei.cut import check_cut_settings, common_mpp, cut_fields
from tral_monai.data.nuclei.division import PARTS, divide_classes, divide_fields, draw_fovs
from tral_monai.data.nuclei.field_check import check_fields
from tral_monai.data.nuclei.folds import GroupBy
from tral_monai.data.nuclei.fov_table import read_fovs, write_fovs
from tral_monai.data.nuclei.index_source import content_of_fields, content_of_folder, read_fold_list
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN, OpenSet
from tral_monai.errors import CohortError, ConfigError

logger = logging.getLogger(__name__)

_LOGGED = 20
_RULES = 1  # of cutting and dividing: a change of them raises it, and tables of older rules are built again

# Okabe & Ito's colours, which colour-blind readers tell apart, then greys for what is not asked for.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66))
_UNKNOWN_COLOR, _IGNORED_COLOR = (90, 90, 90), (190, 190, 190)


class NucleusIndex:
    """Fields of view (FOVs) of a data set with annotated nuclei, as a run needs them.

    The index is built at first use and kept as ``<output_dir>/fovs.parquet`` beside a note of what it was built from
    (files and settings); another input builds it anew.

    Args:
        dataset: Kind of the data set, as :func:`tral_monai.annotations.nuclei.data_sets.read_fields` names it.
        dataset_dir: Its folder (or file).
        output_dir: The run's folder; None keeps nothing.
        open_set: Name of the division into known and unknown classes, such as ``5+2``; see ``known_classes`` there.
        known: Known classes in the detector's order, instead of ``open_set``.
        unknown: Unknown classes; None takes all others. A class on neither side is ignored, and reported.
        mpp: Micrometres per pixel of the images, where the data set does not say or says it wrongly.
        fov_mpp: Resolution at which the detector sees the FOVs; None takes the data set's own.
        fov_px: Wanted side of a FOV in pixels at ``fov_mpp``; None keeps fields whole. See :mod:`.cut` for the rules.
        min_box_px: Boxes with a smaller side at ``fov_mpp`` are ignored.
        folds: Number of folds. 1 puts everything into ``test``: to evaluate a detector on another data set.
        fold: Which of them is ``test``, from 0. None has no test part: everything is for training.
        group_by: What stays on one side: ``hospital``, ``patient``, ``slide``, ``image`` (the paper's) or ``auto``.
        fold_of_slide: A published list of folds instead of a draw: a mapping from slide to the fold that tests it, a
            CSV file with the columns ``slide`` (or ``slide_name``) and ``fold``, or the folder of NuCLS's fold files.
            ``folds`` then counts for nothing, and ``fold`` counts the list's folds from 0.
        val_fraction: Part of the training nuclei to hold back as ``val``, in whole groups.
        seed: Of the draws.
        class_level: Level of the class names, where the data set has several (NuCLS: raw, main, super).
        box_um: Side of the boxes in micrometres, where the data set has only centres.
        max_fovs: At most so many FOVs, drawn from all parts alike: for a quick try.
        check_images: False skips the check of the images, and accepts fields without an image: for studies of the
            annotations alone.
        fields: Ready fields instead of ``dataset`` and ``dataset_dir``.

    Attributes:
        table: All FOVs, with the column ``part``: ``train``, ``val`` or ``test``.
        classes: Known classes in the detector's order.
        open_set: The division into known and unknown classes.
        problems: What is worth a look, one sentence each.

    Raises:
        ConfigError: A setting is out of range or does not fit the data.
        CohortError: No field or image can be used, there are too few groups, or no known class has a test nucleus.
    """

    def __init__(
        self,
        dataset: str,
        dataset_dir: str | Path | None,
        output_dir: str | Path | None,
        *,
        open_set: str = "5+2",
        known: Sequence[str] | None = None,
        unknown: Sequence[str] | None = None,
        mpp: float | None = None,
        fov_mpp: float | None = None,
        fov_px: int | None = 256,
        min_box_px: float = 4.0,
        folds: int = 5,
        fold: int | None = 0,
        group_by: GroupBy = "auto",
        fold_of_slide: Mapping[str, int] | str | Path | None = None,
        val_fraction: float = 0.0,
        seed: int = 0,
        class_level: str | None = None,
        box_um: float | None = None,
        max_fovs: int | None = None,
        check_images: bool = True,
        fields: Sequence[NucleusField] | None = None,
    ) -> None:
        check_cut_settings(fov_mpp=1.0 if fov_mpp is None else fov_mpp, fov_px=fov_px, min_box_px=min_box_px)
        if max_fovs is not None and max_fovs < 2:
            raise ConfigError(f"max_fovs must be at least 2, or None for all, but is {max_fovs!r}")
        if isinstance(known, str) or isinstance(unknown, str):
            raise ConfigError("known and unknown must be lists of class names, but one is a text; write [name, ...]")
        self._fields = None if fields is None else list(fields)
        self._known, self._unknown = known, unknown
        self._dataset_dir = dataset_dir
        self._settings: dict[str, Any] = {
            "dataset": dataset,
            "open_set": open_set if known is None else None,
            "known": None if known is None else list(known),
            "unknown": None if unknown is None else list(unknown),
            "mpp": mpp,
            "fov_mpp": fov_mpp,
            "fov_px": fov_px,
            "min_box_px": min_box_px,
            "folds": folds,
            "fold": fold,
            "group_by": group_by,
            "fold_of_slide": read_fold_list(fold_of_slide),
            "val_fraction": val_fraction,
            "seed": seed,
            "class_level": class_level,
            "box_um": box_um,
            "max_fovs": max_fovs,
            "check_images": check_images,
        }
        self.table: pd.DataFrame
        self.open_set: OpenSet
        self.group_by: str
        self.problems: tuple[str, ...]
        if output_dir is None:
            self._build()
        else:
            self._load_or_build(Path(output_dir) / "fovs.parquet")
        for problem in self.problems[:_LOGGED]:
            logger.warning("%s", problem)
        if len(self.problems) > _LOGGED:
            logger.warning("... and %d more problems of the data set", len(self.problems) - _LOGGED)

    @classmethod
    def from_fields(
        cls, fields: Sequence[NucleusField], output_dir: str | Path | None = None, **settings: Any
    ) -> NucleusIndex:
        """An index of fields that are in memory already.

        Args:
            fields: The fields.
            output_dir: The run's folder; None keeps nothing.
            settings: Keyword arguments of the class; ``known`` is needed where ``dataset`` is not given.
        """
        return cls(settings.pop("dataset", "fields"), None, output_dir, fields=fields, **settings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Known classes in the detector's order."""
        return self.open_set.known

    @property
    def pool(self) -> pd.DataFrame:
        """FOVs that may be asked for: the training part."""
        return self.split("train")

    def split(self, name: str) -> pd.DataFrame:
        """FOVs of one part, with the true classes.

        Raises:
            CohortError: There is no such part.
        """
        if name not in PARTS:
            raise CohortError(f"unknown part '{name}' of a nucleus index, expected {', '.join(PARTS)}")
        return self.table[self.table["part"] == name].reset_index(drop=True)

    def answered(self, name: str) -> pd.DataFrame:
        """FOVs of one part as an annotator would hand them back: each class known, ``unknown`` or ``ignored``."""
        table = self.split(name)
        return table.assign(
            classes=pd.Series([self.open_set.answers(names) for names in table["classes"]], dtype=object)
        )

    @property
    def sha256(self) -> str:
        """Hash of which FOVs there are, what is in them and who is known: runs with another one are other runs.

        Where the files lie does not count, only how the images are called.
        """
        digest = hashlib.sha256(json.dumps([self.open_set.known, self.open_set.unknown]).encode())
        columns = ["id", "field", "left_px", "top_px", "width_px", "height_px", "mpp", "fov_mpp", "part"]
        digest.update(self.table[columns].to_csv(index=False).encode())
        for image, boxes, names in self.table[["image", "boxes_px", "classes"]].itertuples(index=False):
            digest.update(json.dumps([Path(image).name, *names]).encode())
            digest.update(np.ascontiguousarray(boxes, dtype="<f4").tobytes())
        return digest.hexdigest()

    def info(self) -> dict[str, Any]:
        """What a report tells about the data."""
        counts = {part: self._counts(part) for part in PARTS if (self.table["part"] == part).any()}
        colors = {name: list(_COLORS[number % len(_COLORS)]) for number, name in enumerate(self.classes)}
        return {
            "class_colors": {**colors, UNKNOWN: list(_UNKNOWN_COLOR), IGNORED: list(_IGNORED_COLOR)},
            "class_pool_sizes": {name: counts.get("train", {}).get(name, 0) for name in self.classes},
            "open_set": {"known": list(self.open_set.known), "unknown": list(self.open_set.unknown)},
            "part_sizes": {str(part): int(count) for part, count in self.table["part"].value_counts().items()},
            "nuclei": counts,
            "group_by": self.group_by,
            "fov_mpp": float(self.table["fov_mpp"].iloc[0]),
            "index_settings": self._settings,
            "problems": list(self.problems),
        }

    def _counts(self, part: str) -> dict[str, int]:
        """Nuclei of each class in one part, by true class."""
        counter = Counter(name for names in self.table.loc[self.table["part"] == part, "classes"] for name in names)
        names = (*self.open_set.known, *self.open_set.unknown, IGNORED)
        return {name: counter.get(name, 0) for name in names}

    def _load_or_build(self, path: Path) -> None:
        note, made_from = path.with_suffix(".json"), self._made_from()
        if path.is_file() and note.is_file():
            kept = json.loads(note.read_text())
            if kept["made_from"] == made_from:
                self.table = read_fovs(path)
                self.open_set = OpenSet(tuple(kept["known"]), tuple(kept["unknown"]))
                self.group_by, self.problems = str(kept["group_by"]), tuple(str(text) for text in kept["problems"])
                return
        self._build()
        path.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)  # while the table is being replaced, no note may speak for it
        write_fovs(self.table, path)
        kept = {
            "made_from": made_from,
            "known": self.open_set.known,
            "unknown": self.open_set.unknown,
            "group_by": self.group_by,
            "problems": self.problems,
        }
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(kept, indent=1))

    def _made_from(self) -> dict[str, Any]:
        ready = self._fields
        content = content_of_folder(self._folder()) if ready is None else content_of_fields(ready)
        return json.loads(json.dumps({"content": content, "settings": self._settings, "rules": _RULES}))

    def _folder(self) -> Path:
        if self._dataset_dir is None:
            raise ConfigError("dataset_dir is missing: give the data set's folder, or ready fields")
        return Path(self._dataset_dir)

    def _build(self) -> None:
        settings = self._settings
        unread: list[str] = []
        fields, problems = check_fields(self._read(unread), images=settings["check_images"])
        problems = [*(f"skipped {problem}" for problem in unread), *problems]
        known = self._known
        if known is None:
            from tral_monai.annotations.nuclei.data_sets import known_classes

            known = known_classes(settings["dataset"], settings["open_set"])
        self.open_set, of_classes = divide_classes(
            fields, known=known, unknown=self._unknown, must_occur=self._known is not None
        )
        named = set(self.open_set.known) | set(self.open_set.unknown)
        fov_mpp = settings["fov_mpp"] if settings["fov_mpp"] is not None else common_mpp(fields)
        names = ("folds", "fold", "group_by", "fold_of_slide", "val_fraction", "seed")
        parts, self.group_by, of_folds = divide_fields(fields, **{name: settings[name] for name in names})
        table = cut_fields(fields, fov_mpp=fov_mpp, fov_px=settings["fov_px"], min_box_px=settings["min_box_px"])
        part_of_field = {field.name: part for field, part in zip(fields, parts, strict=True)}
        table["part"] = [part_of_field[name] for name in table["field"]]
        known_or_ignored = [tuple(name if name in named else IGNORED for name in names) for names in table["classes"]]
        table["classes"] = pd.Series(known_or_ignored, dtype=object)
        self.table = draw_fovs(table, settings["max_fovs"], seed=settings["seed"])
        self.problems = (*self._class_problems(), *of_classes, *of_folds, *problems)

    def _read(self, unread: list[str]) -> list[NucleusField]:
        """The fields; those of the data set that cannot be read are noted in ``unread``."""
        if self._fields is not None:
            return self._fields
        from tral_monai.annotations.nuclei.data_sets import read_fields

        given = {name: self._settings[name] for name in ("mpp", "class_level", "box_um")}
        return read_fields(self._settings["dataset"], self._folder(), **given, problems=unread)

    def _class_problems(self) -> list[str]:
        parts = set(self.table["part"])
        problems = []
        for part, meaning in (("train", "a detector cannot learn it"), ("test", "its AP is not defined")):
            if part not in parts:
                continue
            counts = self._counts(part)
            empty = [name for name in self.classes if not counts[name]]
            if len(empty) == len(self.classes):
                raise CohortError(
                    f"no known class of {list(self.classes)} has a nucleus in the {part} part; check the class names "
                    f"(there: {[name for name in self.open_set.unknown if counts[name]]}), or choose another fold, "
                    "fewer folds or a smaller min_box_px"
                )
            problems += [f"known class '{name}' has no nucleus in the {part} part: {meaning}" for name in empty]
        return problems
