# SPDX-License-Identifier: Apache-2.0
"""Settings of an annotation site: what a lab says of its slides, classes and rounds when it starts the server."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from tral_monai.errors import ConfigError

Task = Literal["tissue", "nuclei"]
TASKS: tuple[Task, ...] = ("tissue", "nuclei")

BUNDLES: dict[Task, str] = {
    "tissue": "pathology_multiscale_tissue_classification",
    "nuclei": "pathology_open_set_nucleus_detection",
}
"""The bundle behind each task."""


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """Settings of one task; on the command line their names carry the task's: ``tissue_budget``, ``nuclei_classes``.

    Attributes:
        classes: classes to learn, in the network's order; None takes those of ``class_map`` or ``checkpoint``, else the
            bundle's.
        class_map: YAML file of class rules (or ``bladder``); None takes every class name as it stands.
        checkpoint: a model to begin with; None begins without one.
        overlay: YAML file(s) of settings for the bundle's ``train.yaml``; ``auto`` takes the small CPU networks where
            there is no GPU; None takes the bundle's own.
        overrides: further ids of ``train.yaml`` with their values.
        strategy: the strategy that prepares a round's query.
        strategy_options: its options.
        budget: regions to train on that a round asks for.
        val_budget: further regions, on held-out slides, that the first round asks for to measure models by.
        region_um: side of a region in micrometres: what a person annotates in about a minute.
        max_candidates: regions that the model looks at before a query, drawn at random from all; None looks at all.
        warm_start: a round's training begins with the current model; None takes what the overlay says, else true.
        publish_tolerance: a new model is published if its validation score is at least the current one's less this.
        negative_class: tissue: the class of the parts of an answered region where nothing was drawn; None gives them
            no class.
    """

    classes: tuple[str, ...] | None = None
    class_map: str | None = None
    checkpoint: str | None = None
    overlay: str | tuple[str, ...] | None = "auto"
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    strategy: str = ""
    strategy_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    budget: int = 10
    val_budget: int = 6
    region_um: float = 256.0
    max_candidates: int | None = 1000
    warm_start: bool | None = None
    publish_tolerance: float = 0.0
    negative_class: str | None = None


DEFAULTS: dict[Task, TaskSettings] = {
    "tissue": TaskSettings(strategy="tri_al_quota"),
    "nuclei": TaskSettings(strategy="osal_nd", region_um=64.0, max_candidates=300),
}
"""Defaults of each task."""


@dataclasses.dataclass(frozen=True)
class SiteSettings:
    """Settings of a site.

    Attributes:
        tasks: which of the two tasks are offered.
        output_dir: folder of ledgers and models; None takes ``active_learning`` in the studies' folder.
        bundles: folder of the two bundles; None looks beside the package.
        slides_table: CSV with ``slide`` and any of ``patient, split, mpp, areas``; None takes ``slides.csv`` of the
            studies' folder where it is there.
        mpp: micrometres per level-0 pixel of slides and images that record none.
        val_fraction: part of the slides (of the tissue, where there is one slide) that is held out.
        reserve_minutes: how long a region that was handed out is kept for the one who asked.
        device: where networks run; ``auto`` takes a GPU where there is one.
        seed: of every draw.
        tissue: settings of the tissue task.
        nuclei: settings of the nucleus task.
    """

    tasks: tuple[Task, ...] = TASKS
    output_dir: str | None = None
    bundles: str | None = None
    slides_table: str | None = None
    mpp: float | None = None
    val_fraction: float = 0.25
    reserve_minutes: float = 15.0
    device: str = "auto"
    seed: int = 0
    tissue: TaskSettings = DEFAULTS["tissue"]
    nuclei: TaskSettings = DEFAULTS["nuclei"]

    def task(self, name: Task) -> TaskSettings:
        """The settings of one task."""
        return self.tissue if name == "tissue" else self.nuclei


_OWN = tuple(f.name for f in dataclasses.fields(SiteSettings) if f.name not in TASKS)
_OF_TASK = tuple(f.name for f in dataclasses.fields(TaskSettings))
KEYS = (*_OWN, *(f"{task}_{name}" for task in TASKS for name in _OF_TASK))
"""All settings by their names on the command line; besides, ``config`` names a YAML file that holds any of them."""

PATHS = ("output_dir", "bundles", "slides_table", "class_map", "checkpoint", "overlay")
"""Settings, or the ends of their names, that are files or folders."""


def read_settings(conf: Mapping[str, Any]) -> SiteSettings:
    """Settings from ``--conf key value`` pairs.

    Args:
        conf: text values, read as YAML (``null``, ``[a, b]``, ``0.25``); a list may also be written ``a, b``. The key
            ``config`` names a YAML file of settings, over which the others win; its relative paths start at its folder.

    Raises:
        ConfigError: a key is unknown (the message names the closest), or a value is out of range.
    """
    values: dict[str, Any] = {}
    if conf.get("config"):
        values.update(_read_file(Path(str(conf["config"]))))
    values.update({key: _value(key, value) for key, value in conf.items() if key not in ("config", *_FOREIGN)})
    for key in values:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"there is no setting '{key}'{hint} (settings: config, {', '.join(KEYS)})")
    of_task = {
        task: dataclasses.replace(
            DEFAULTS[task],
            **{
                name: _typed(f"{task}_{name}", name, values[f"{task}_{name}"], TaskSettings)
                for name in _OF_TASK
                if f"{task}_{name}" in values
            },
        )
        for task in TASKS
    }
    own = {name: _typed(name, name, values[name], SiteSettings) for name in _OWN if name in values}
    settings = SiteSettings(**own, tissue=of_task["tissue"], nuclei=of_task["nuclei"])
    _check(settings)
    return settings


_FOREIGN = ("server_mode", "models", "preload", "zoo_source", "sam2", "auto_finetune_models")
"""Keys of MONAI Label's own apps, accepted and without effect here."""


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"settings file {path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path.name}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"settings file {path.name}: expected 'setting: value' lines, but found {content!r}")
    folder = path.absolute().parent

    def resolved(key: str, value: Any) -> Any:
        if not key.endswith(PATHS) or value is None:
            return value
        if isinstance(value, (list, tuple)):
            return [resolved(key, one) for one in value]
        file = folder / str(value)
        return str(file) if file.exists() or key.endswith("output_dir") else value

    return {str(key): resolved(str(key), value) for key, value in content.items()}


def _value(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--conf {key}: '{value}' is not valid YAML ({error}); quote it") from error


def _typed(key: str, name: str, value: Any, kind: type) -> Any:
    """A value in the type of its field."""
    annotation = str(next(f.type for f in dataclasses.fields(kind) if f.name == name))
    optional = "None" in annotation
    if value is None:
        if optional:
            return None
        raise ConfigError(f"{key} must have a value, but is null; leave it out to take the default")
    if "Mapping" in annotation:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} must map names to values, such as '{{max_epochs: 20}}', but is {value!r}")
        return dict(value)
    if name in ("tasks", "classes"):
        entries = value.split(",") if isinstance(value, str) else value
        if not isinstance(entries, Sequence):
            raise ConfigError(f"{key} must be a list of names, such as 'Tumor, Stroma', but is {value!r}")
        return tuple(str(entry).strip() for entry in entries)
    if name == "overlay":
        return tuple(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if annotation.startswith("bool"):
        if not isinstance(value, bool):
            raise ConfigError(f"{key} must be true or false, but is {value!r}")
        return value
    if annotation.startswith(("int", "float")):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{key} must be a number, but is {value!r}")
        if annotation.startswith("int") and int(value) != value:
            raise ConfigError(f"{key} must be a whole number, but is {value!r}")
        return int(value) if annotation.startswith("int") else float(value)
    return str(value)


def _check(settings: SiteSettings) -> None:
    strangers = [name for name in settings.tasks if name not in TASKS]
    if strangers or not settings.tasks:
        raise ConfigError(f"tasks must be tissue, nuclei or both, but is {list(settings.tasks)}")
    limits: list[tuple[str, float | None, float, float]] = [
        ("mpp", settings.mpp, 0.01, 100.0),
        ("val_fraction", settings.val_fraction, 0.0, 0.9),
        ("reserve_minutes", settings.reserve_minutes, 0.01, 60 * 24 * 7),
    ]
    for task in TASKS:
        own = settings.task(task)
        limits += [
            (f"{task}_budget", own.budget, 1, 100_000),
            (f"{task}_val_budget", own.val_budget, 0, 100_000),
            (f"{task}_region_um", own.region_um, 8.0, 20_000.0),
            (f"{task}_max_candidates", own.max_candidates, 10, 10_000_000),
            (f"{task}_publish_tolerance", own.publish_tolerance, 0.0, 1.0),
        ]
        if own.classes is not None and (len(set(own.classes)) < len(own.classes) or not all(own.classes)):
            raise ConfigError(f"{task}_classes must be different names, but are {list(own.classes)}")
    for name, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} must lie between {low:g} and {high:g}, but is {value:g}")
