# SPDX-License-Identifier: Apache-2.0
"""docs/README.md of the bundle against its configurations."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.bundles.bundle_files import BUNDLE, CONFIGS, ROOT, constants, read

TEXT = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
CONFIG_OF = {"AL": "active_learning", "train": "train", "evaluate": "evaluate", "inference": "inference"}


def table():
    """(id, configuration) -> default as the table of settings has it."""
    documented = {}
    name = ""
    for line in TEXT.split("## Settings")[1].split("## Limits")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or cells[0] in ("id", "---"):
            continue
        name = cells[0].strip("`") or name
        for where in CONFIG_OF if cells[1] == "all" else cells[1].split(", "):
            documented[name, CONFIG_OF[where]] = cells[2]
    return documented


@pytest.mark.parametrize("config", CONFIG_OF.values())
def test_every_setting_is_in_the_table_with_its_default(config):
    documented = {name: default for (name, where), default in table().items() if where == config}
    actual = constants(CONFIGS / f"{config}.yaml")
    assert set(documented) == set(actual)
    del documented["device"]
    assert {name: yaml.safe_load(default.strip("`")) for name, default in documented.items()} == {
        name: value for name, value in actual.items() if name != "device"
    }


def commands():
    blocks = re.findall(r"```\n(.*?)```", TEXT, flags=re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks if "monai.bundle" in block]


@pytest.mark.parametrize("command", commands(), ids=lambda command: re.search(r"configs/(\w+)", command)[1])
def test_a_command_names_files_and_options_that_exist(command):
    files = [ROOT / name.replace("$B", str(BUNDLE)) for name in re.findall(r"[$\w./]+\.(?:yaml|json)\b", command)]
    assert files
    known = {"bundle_root", "config_file", "standalone", "nproc_per_node"}
    known |= {"net_id", "filepath", "ckpt_file", "key_in_ckpt", "meta_file"} if "ckpt_export" in command else set()
    for file in files:
        assert file.is_file()
        known |= set(read(file)) if file.suffix == ".yaml" else set()
    assert set(re.findall(r"--(\w+)", command)) <= known


def test_there_is_a_command_for_each_configuration():
    text = "".join(commands())
    assert all(f"{path.stem}.yaml" in text for path in CONFIGS.glob("*.yaml"))


def test_files_of_the_project_that_it_names_exist():
    for name in re.findall(r"`((?:scripts|docs|configs)/[\w./]+)`", TEXT):
        assert (ROOT / name).exists() or (BUNDLE / name).exists(), name
