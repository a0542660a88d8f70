# SPDX-License-Identifier: Apache-2.0
"""docs/README.md of each bundle against its configurations."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.bundles.bundle_files import BUNDLES, ROOT, Bundle, constants, read

CONFIG_OF = {"AL": "active_learning", "train": "train", "evaluate": "evaluate", "inference": "inference"}
CONFIG_OF["exit"] = "early_exit"


def readme(bundle: Bundle) -> str:
    return (bundle.folder / "docs" / "README.md").read_text(encoding="utf-8")


def table(bundle: Bundle) -> dict[tuple[str, str], str]:
    """(id, configuration) -> default as the table of settings has it."""
    documented = {}
    name = ""
    for line in readme(bundle).split("## Settings")[1].split("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or cells[0] in ("id", "---"):
            continue
        name = cells[0].strip("`") or name
        for where in CONFIG_OF if cells[1] == "all" else cells[1].split(", "):
            documented[name, CONFIG_OF[where]] = cells[2]
    return documented


def commands(bundle: Bundle) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", readme(bundle), flags=re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks if "monai.bundle" in block]


every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=str)
ALL_COMMANDS = [
    pytest.param(bundle, command, id=f"{bundle}-{number}")
    for bundle in BUNDLES
    for number, command in enumerate(commands(bundle))
]


@pytest.mark.parametrize(
    ("bundle", "config"),
    [
        pytest.param(bundle, config, id=f"{bundle}-{config}")
        for bundle in BUNDLES
        for config in CONFIG_OF.values()
        if (bundle.config_folder / f"{config}.yaml").exists()
    ],
)
def test_every_setting_is_in_the_table_with_its_default(config, bundle: Bundle):
    documented = {name: default for (name, where), default in table(bundle).items() if where == config}
    actual = constants(bundle.config_folder / f"{config}.yaml")
    assert set(documented) == set(actual)
    del documented["device"]
    assert {name: yaml.safe_load(default.strip("`")) for name, default in documented.items()} == {
        name: value for name, value in actual.items() if name != "device"
    }


@pytest.mark.parametrize(("bundle", "command"), ALL_COMMANDS)
def test_a_command_names_files_and_options_that_exist(bundle: Bundle, command):
    named = re.findall(r"[$\w./]+\.(?:yaml|json)\b", command)
    files = [ROOT / name.replace("$B", str(bundle.folder)) for name in named]
    assert files
    known = {"bundle_root", "config_file", "standalone", "nproc_per_node"}
    known |= {"net_id", "filepath", "ckpt_file", "key_in_ckpt", "meta_file"} if "ckpt_export" in command else set()
    for file in files:
        assert file.is_file()
        known |= set(read(file)) if file.suffix == ".yaml" else set()
    assert set(re.findall(r"--(\w+)", command)) <= known


@every_bundle
def test_there_is_a_command_for_each_configuration(bundle: Bundle):
    text = "".join(commands(bundle))
    assert all(f"{path.stem}.yaml" in text for path in bundle.configs)


@every_bundle
def test_files_of_the_project_that_it_names_exist(bundle: Bundle):
    for name in re.findall(r"`((?:scripts|docs|configs)/[\w./]+)`", readme(bundle)):
        assert (ROOT / name).exists() or (bundle.folder / name).exists(), name
