# SPDX-License-Identifier: Apache-2.0
"""A check that MONAI lacks: ``python -m monai.bundle run`` accepts a mistyped option silently, and drops ``None``."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from tral_monai.error_chain import show_own_error_last
from tral_monai.errors import ConfigError

# Ends of the names of options that hold paths.
PATH_OPTIONS = ("_dir", "_path", "_samples", "checkpoint", "cohort", "images", "slides")
# Options of `python -m monai.bundle run` itself.
RUN_OPTIONS = frozenset(
    {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file"}
    | {"workflow_name", "workflow_type", "properties_path", "bundle_root"}
)


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse options of a bundle run that its configuration does not know, such as ``--bugdet 100``.

    Call it from the ``initialize`` list of a configuration. Does nothing in a process that is not
    ``python -m monai.bundle run``. In such a process, it also makes errors end with this package's own message.

    Args:
        argv: the command line; the process's own by default.

    Raises:
        ConfigError: an option is unknown (the message names the closest known one), or is ``None``, which MONAI drops,
            or a path holds ``#``, which MONAI turns into ``::``, so that another path would be read or written.
    """
    from monai.bundle.config_parser import ConfigParser

    arguments = list(sys.argv if argv is None else argv)
    if len(arguments) < 2 or arguments[1] != "run" or "bundle" not in Path(arguments[0]).parts[-2:]:
        return
    if argv is None:
        show_own_error_last()
    options = dict(_options(arguments[2:]))
    if "config_file" not in options or "args_file" in options:
        return
    known = RUN_OPTIONS | set(ConfigParser.load_config_files(_file_list(options["config_file"])))
    for name, value in options.items():
        if value == "None":
            raise ConfigError(f"MONAI ignores --{name} None; write --{name} '$None', in quotes, to set it to nothing")
        identifier = name.lstrip("+").replace("::", "#").split("#")[0]
        if identifier not in known:
            close = difflib.get_close_matches(identifier, known, n=1)
            hint = f"did you mean --{close[0]}?" if close else "the configuration's first lines list what there is"
            raise ConfigError(f"unknown option --{name}: {hint}")
        if "#" in value and name.endswith(PATH_OPTIONS) and not value.startswith(("$", "@", "%")):
            raise ConfigError(
                f"MONAI turns '#' into '::', so --{name} {value} would be another path; rename it without"
            )


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for position, argument in enumerate(arguments):
        if argument.startswith("--") and len(argument) > 2:
            name, _, value = argument[2:].partition("=")
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            pairs.append((name, value or following))
    return pairs


def _file_list(text: str) -> list[str]:
    """Fire reads ``"['a.yaml','b.yaml']"`` as a list and anything else as one file."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return [text]
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [text]
