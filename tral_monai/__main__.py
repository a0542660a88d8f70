# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai COMMAND``: the few things that are not a bundle run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tral_monai import __version__
from tral_monai.cli import COMMANDS
from tral_monai.errors import TralError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; the process's own by default.

    Returns:
        The exit status: 0, or 1 after an error or where the command found something wrong. Wrong usage exits with 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m tral_monai",
        description="Active learning for computational pathology.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this help, or that of a command")
    parser.add_argument("--version", action="version", version=f"tral_monai {__version__}")
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND")
    parser.epilog = "commands:\n" + "\n".join(f"  {name:<10}{line}" for name, line in COMMANDS.items())
    # Only what stands before the command is ours: everything after it belongs to the command.
    own = next((position + 1 for position, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    options = parser.parse_args(arguments[:own])
    if options.command is None:
        parser.print_help()
        return 0 if options.help else 2
    module = importlib.import_module(f"tral_monai.cli.{options.command}")
    command = argparse.ArgumentParser(prog=f"{parser.prog} {options.command}", description=COMMANDS[options.command])
    module.add_arguments(command)
    try:
        status: int = module.run(command.parse_args(["--help"] if options.help else arguments[own:]))
        return status
    except TralError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
