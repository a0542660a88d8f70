# SPDX-License-Identifier: Apache-2.0
"""Settings of one training at a site: the bundle's, the lab's, and what a client may ask for by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.site import TaskSite

SITE_IDS = (
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "train_samples",
    "val_samples",
    "checkpoint",
    "feature_dir",
    "device",
    "seed",
    "verbose",
    "classes",
    "class_colors",
    "role",
    "loss_prediction",
    "pretrained_path",
)
"""Ids of ``train.yaml`` that belong to the site: places, labels, and what follows from the task."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


def train_values(task: TaskSite) -> dict[str, Any]:
    """The ids of the bundle's ``train.yaml`` with the site's overlay laid over them."""
    content = yaml.safe_load(task.train_config.read_text(encoding="utf-8"))
    return {**content, **task.overlay}


def open_settings(task: TaskSite) -> dict[str, bool | int | float | str]:
    """The settings that a client may change for one training: numbers, switches and words, with their values."""
    return {
        name: value
        for name, value in train_values(task).items()
        if name not in SITE_IDS
        and (isinstance(value, (bool, int, float)) or (isinstance(value, str) and _WORD.fullmatch(value)))
    }


def training_options(task: TaskSite, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings that came with a request.

    They come from the network, and MONAI would evaluate texts with ``$``, ``@`` or ``%`` as code, references and
    files: only plain words pass, and only for settings that the site leaves open.

    Args:
        task: the task's site.
        options: values by id of ``train.yaml``; numbers may come as text.

    Returns:
        The values in the type of their setting.

    Raises:
        ConfigError: a setting is unknown or not open (the message names those that are), or a value is no plain one.
    """
    known = open_settings(task)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"a training has no option '{name}'{hint} (options: {', '.join(sorted(known))})")
        values[str(name)] = _typed(str(name), value, known[name])
    return values


def _typed(name: str, value: Any, default: bool | int | float | str) -> Any:
    if isinstance(value, str) and not isinstance(default, str):
        value = _from_text(value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, but is {value!r}")
        return value
    if isinstance(default, str):
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise ConfigError(f"{name} must be one plain word, such as '{default}', but is {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number, such as {default}, but is {value!r}")
    least = 1 if isinstance(default, int) and default >= 1 else 0
    if value < least:
        raise ConfigError(f"{name} must be {least} or more, but is {value!r}")
    if isinstance(default, int):
        if int(value) != value:
            raise ConfigError(f"{name} must be a whole number, but is {value!r}")
        return int(value)
    return float(value)


def _from_text(text: str) -> Any:
    """A switch or a number that came as text; the text itself where it is neither."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    try:
        return float(word)
    except ValueError:
        return text
