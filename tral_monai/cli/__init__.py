# SPDX-License-Identifier: Apache-2.0
"""Commands of ``python -m tral_monai``, one module each, imported only when its command is run.

A module has ``add_arguments(parser)`` and ``run(arguments) -> int``, the exit status. To add a command, write the
module and name it here.
"""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "app": "where the MONAI Label app lies, for `monailabel start_server --app`",
    "cohort": "check a cohort CSV and summarise its slides, classes, areas and triplets",
    "engines": "which inference engines run on this machine, and how fast they are",
    "fields": "check a data set of annotated nuclei: fields, classes, box sizes, open-set settings",
    "ledger": "show what a run has done and spent so far",
    "regions": "write a round's regions as QuPath GeoJSON, to be annotated without a server",
    "report": "write the HTML report of a run, compared with other runs",
}
"""Command, which is its module's name, and what it does in one line."""
