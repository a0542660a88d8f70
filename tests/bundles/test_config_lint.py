# SPDX-License-Identifier: Apache-2.0
"""Traps of MONAI's configuration files, which do no harm until somebody's run is lost to them."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.bundle_files import BUNDLE_CONFIGS, CONFIGS, OVERLAYS, constants, meant_for, read

ALL = [*BUNDLE_CONFIGS, *OVERLAYS]
WITH_CONSTANTS = ["active_learning.yaml", "evaluate.yaml", "inference.yaml", "train.yaml"]
REFERENCE = re.compile(r"@[\w#]+")

every_config = pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)


def entries(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(id, value) of everything inside a configuration."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from entries(item, f"{where}#{key}".lstrip("#"))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from entries(item, f"{where}#{number}")
    else:
        yield where, value


def texts(path: Path) -> list[tuple[str, str]]:
    return [(where, value) for where, value in entries(read(path)) if isinstance(value, str)]


def test_what_is_checked():
    assert [path.name for path in BUNDLE_CONFIGS] == sorted([*WITH_CONSTANTS, "multi_gpu_train.yaml"])
    assert len(OVERLAYS) == 16


def test_a_key_that_stands_twice_is_seen(tmp_path):
    (tmp_path / "twice.yaml").write_text("a: {b: 1, c: 2, b: 3}\n")
    with pytest.raises(ValueError, match=r"the keys \['b'\] stand twice"):
        read(tmp_path / "twice.yaml")


@every_config
def test_keys_are_texts_and_stand_once(path):
    # read() refuses duplicates, of which MONAI takes the last. `on:` would be the key True; `<<` crashes MONAI.
    def keys(value: Any) -> Iterator[Any]:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from keys(item)
        if isinstance(value, dict):
            yield from value

    assert [key for key in keys(read(path)) if not isinstance(key, str) or key == "<<"] == []


@every_config
def test_no_hash_in_a_value(path):
    # MONAI turns every # in a text into ::, so that "#FF0000" is no colour any more. References are what it is for.
    assert [(where, text) for where, text in texts(path) if "#" in REFERENCE.sub("", text)] == []


@every_config
def test_numbers_are_numbers(path):
    # YAML 1.1 reads 1e-3 as a text; it wants 1.0e-3.
    number = re.compile(r"[-+]?\d[\d_]*(\.\d*)?([eE][-+]?\d+)?")
    assert [(where, text) for where, text in texts(path) if number.fullmatch(text.strip())] == []


@every_config
def test_an_import_binds_one_name(path):
    # `$import a, b` and `$from x import a, b` bind the first name only, `$import os.path` none that is called os.
    imports = [text for _, text in texts(path) if re.match(r"\$\s*(import|from)\b", text)]
    assert [text for text in imports if not re.fullmatch(r"\$import (\w+|[\w.]+ as \w+)", text)] == []


@every_config
def test_targets_exist_and_are_named_in_full(path):
    # Short names are looked up in modules that happen to be loaded.
    targets = [text for where, text in texts(path) if where.endswith("_target_")]
    assert [target for target in targets if "." not in target or not callable(pydoc.locate(target))] == []


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_every_constant_is_used(name):
    config = read(CONFIGS / name)
    used = {found[1:].split("#")[0] for _, text in texts(CONFIGS / name) for found in REFERENCE.findall(text)}
    assert set(constants(CONFIGS / name)) - used == set()
    assert {found for found in used if found not in config} == set()


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_options_of_the_command_line_are_checked(name):
    assert {"_target_": "tral_monai.command_line.check_command_line"} in read(CONFIGS / name)["initialize"]


def test_multi_gpu_training_checks_options_too():
    config = read(CONFIGS / "multi_gpu_train.yaml")
    assert config["initialize"][0] == {"_target_": "tral_monai.command_line.check_command_line"}


def test_active_learning_trains_as_train_yaml_does():
    rounds, training = constants(CONFIGS / "active_learning.yaml"), constants(CONFIGS / "train.yaml")
    shared = set(rounds) & set(training) - {"output_dir"}  # a run's folder, and the bundle's models
    assert {name: rounds[name] for name in shared} == {name: training[name] for name in shared}
    assert len(shared) > 20


def test_active_learning_overrides_what_train_yaml_has():
    overrides, training = read(CONFIGS / "active_learning.yaml")["train_overrides"], constants(CONFIGS / "train.yaml")
    assert set(overrides) - set(training) == set()
    # All but what each round sets itself.
    of_the_round = {"bundle_root", "dataset_dir", "output_dir", "train_samples", "val_samples", "checkpoint", "seed"}
    assert set(training) - of_the_round - {"val_interval"} == set(overrides)


@pytest.mark.parametrize(
    ("name", "other"), [("evaluate.yaml", "active_learning.yaml"), ("inference.yaml", "evaluate.yaml")]
)
def test_a_constant_means_the_same_everywhere(name, other):
    ours, theirs = constants(CONFIGS / name), constants(CONFIGS / other)
    shared = set(ours) & set(theirs) - {"output_dir", "feature_dir", "predict_batch_size"}
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_changes_constants_that_exist(overlay):
    for config in meant_for(overlay):
        known = set(constants(config))
        assert set(read(overlay)) <= known, f"{overlay.name} on {config.name}"
