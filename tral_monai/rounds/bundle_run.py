# SPDX-License-Identifier: Apache-2.0
"""A bundle's workflow run inside this process, for scripts that run several of them."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tral_monai.error_chain import own_error
from tral_monai.errors import ConfigError


def run_workflow(config_files: Sequence[str | Path], **overrides: Any) -> Any:
    """Initialise, run and finalise a bundle's workflow, as ``python -m monai.bundle run`` does.

    Args:
        config_files: configurations, of which later ones override earlier ones.
        **overrides: values for their ids; each must be an id that the configurations have.

    Returns:
        The finished ``monai.bundle.ConfigWorkflow``; its ``parser`` gives the objects that it made.

    Raises:
        ConfigError: a file is missing, or an override names an unknown id.
        TralError: what the run itself raises, without the errors that MONAI wraps around it.
    """
    files = [str(path) for path in config_files]
    check_overrides(files, overrides)
    from monai.bundle.workflows import ConfigWorkflow

    # MONAI warns at every parse that overlays lie in another folder than the first file, which is how they are used.
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        try:
            workflow = ConfigWorkflow(files, workflow_type=None, logging_file=False, **overrides)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
            return workflow
        except RuntimeError as error:
            own = own_error(error)
            if own is None:
                raise
    raise own


def check_overrides(config_files: Sequence[str], names: Iterable[str]) -> None:
    """Refuse overrides that would change nothing: MONAI adds an unknown id and goes on.

    Args:
        config_files: configurations, of which later ones override earlier ones.
        names: ids to override, such as ``max_epochs`` or ``train#trainer#amp``.

    Raises:
        ConfigError: a file is missing, or a name's first part is no id of the configurations; the message names the
            closest one.
    """
    missing = [path for path in config_files if not Path(path).is_file()]
    if missing:
        raise ConfigError(f"there is no configuration {missing}; expected YAML or JSON files")
    from monai.bundle.config_parser import ConfigParser

    known = set(ConfigParser.load_config_files(list(config_files)))
    for name in names:
        identifier = name.replace("::", "#").split("#")[0]
        if identifier not in known:
            close = difflib.get_close_matches(identifier, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"the configurations {[Path(f).name for f in config_files]} have no id '{name}'{hint}")
