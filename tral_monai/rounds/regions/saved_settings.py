# SPDX-License-Identifier: Apache-2.0
"""The settings of the server that ran last on a studies folder, so that commands beside it mean the same site."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.settings import PATHS, TASKS, SiteSettings
from tral_monai.rounds.regions.site import AnnotationSite


def settings_file(studies: str | Path) -> Path:
    """Where the settings of a studies folder are kept, also if ``output_dir`` lies elsewhere."""
    return Path(studies).absolute() / "active_learning" / "settings.json"


def save_settings(site: AnnotationSite) -> Path:
    """Write down the settings that a site runs with, those that differ from the defaults.

    Args:
        site: the site.

    Returns:
        The file.

    Raises:
        OutputError: it cannot be written.
    """
    values = _changed(site.settings, SiteSettings(), "")
    for task in TASKS:
        values.pop(task, None)
        values.update(_changed(site.settings.task(task), SiteSettings().task(task), f"{task}_"))
    values = {key: _absolute(value) if key.endswith(PATHS) else value for key, value in values.items()}
    path = settings_file(site.studies)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")
    return path


def saved_settings(studies: str | Path) -> dict[str, Any]:
    """What :func:`save_settings` has written down, for ``read_settings``; empty where no server has run.

    Args:
        studies: the studies folder.

    Raises:
        ConfigError: the file is damaged.
    """
    path = settings_file(studies)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); delete it, and give the settings with --conf") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; delete it, and give the settings with --conf")
    return content


def _changed(settings: Any, defaults: Any, prefix: str) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(settings)]
    return {
        f"{prefix}{name}": getattr(settings, name)
        for name in names
        if getattr(settings, name) != getattr(defaults, name)
    }


def _absolute(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_absolute(one) for one in value]
    return str(Path(value).absolute()) if isinstance(value, str) and Path(value).exists() else value
