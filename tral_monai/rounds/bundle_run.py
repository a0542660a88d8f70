# SPDX-License-Identifier: Apache-2.0
"""A bundle's workflow run inside this process, for scripts that run several of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
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
    missing = [str(path) for path in config_files if not Path(path).is_file()]
    if missing:
        raise ConfigError(f"there is no configuration {missing}; expected YAML or JSON files")
    from monai.bundle.config_parser import ConfigParser
    from monai.bundle.workflows import ConfigWorkflow

    files = [str(path) for path in config_files]
    known = set(ConfigParser.load_config_files(files))
    unknown = sorted(name for name in overrides if name.split("#")[0] not in known)
    if unknown:
        raise ConfigError(f"the configurations {[Path(f).name for f in files]} have no id {unknown}")
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
