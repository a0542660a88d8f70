# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai app``: where the MONAI Label app lies, or a folder for it that can be written to."""

from __future__ import annotations

import argparse
from pathlib import Path

import tral_monai
from tral_monai.atomic_file import atomic_path, prepare_folder
from tral_monai.errors import ConfigError

MAIN = '''# SPDX-License-Identifier: Apache-2.0
"""The app of a MONAI Label server: monailabel start_server --app <this folder> --studies SLIDES."""

from tral_monai.label_app.app import PathologyApp

__all__ = ["PathologyApp"]
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.epilog = (
        "MONAI Label writes its log and some folders into the app's folder. With --into they lie outside of the "
        "package: monailabel start_server --app $(python -m tral_monai app --into label-app) --studies SLIDES"
    )
    parser.add_argument("--into", metavar="DIR", help="make a folder that starts the app, and print it instead")


def run(arguments: argparse.Namespace) -> int:
    """Print the folder.

    Args:
        arguments: from the command's parser.

    Returns:
        0.

    Raises:
        ConfigError: another program's ``main.py`` lies in the folder, or it cannot be written to.
    """
    if arguments.into is None:
        print(Path(tral_monai.__file__).resolve().parent / "label_app")
        return 0
    folder = prepare_folder(arguments.into)
    main = folder / "main.py"
    if main.is_file() and main.read_text(encoding="utf-8") != MAIN:
        raise ConfigError(f"{main} is there and is not this app's; choose another folder")
    if not main.is_file():
        with atomic_path(main) as temporary:
            temporary.write_text(MAIN, encoding="utf-8")
    print(folder.absolute())
    return 0
