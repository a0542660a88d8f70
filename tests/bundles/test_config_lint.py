# SPDX-License-Identifier: Apache-2.0
"""Traps of MONAI's configuration files, which do no harm until somebody's run is lost to them."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.bundle_files import BUNDLES, ROOT, TISSUE, Bundle, constants, meant_for, read

OVERLAYS = [path for bundle in BUNDLES for path in bundle.overlays]
ALL = [*(path for bundle in BUNDLES for path in bundle.configs), *OVERLAYS]
WITH_CONSTANTS = [(bundle, path.name) for bundle in BUNDLES for path in bundle.configs if "multi" not in path.name]
REFERENCE = re.compile(r"@[\w#]+")

# What each round of a run sets itself; of the nucleus bundle also which detector it is that is trained.
OF_THE_ROUND = {"bundle_root", "dataset_dir", "output_dir", "train_samples", "val_samples", "checkpoint", "seed"}
OF_THE_ROUND |= {"role", "loss_prediction"}
# Constants that may differ between configurations of one bundle: where results go, and what a machine can hold. An
# active-learning run takes the resolution that its data have.
OWN = {"output_dir", "feature_dir", "predict_batch_size", "fov_mpp"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removesuffix(".yaml").replace("bundles/pathology_", "")


every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=str)
every_config_with_constants = pytest.mark.parametrize(("bundle", "name"), WITH_CONSTANTS, ids=str)
every_config = pytest.mark.parametrize("path", ALL, ids=name_of)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)


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


@every_bundle
def test_what_is_checked(bundle: Bundle):
    names = {"active_learning.yaml", "evaluate.yaml", "inference.yaml", "multi_gpu_train.yaml", "train.yaml"}
    assert {path.name for path in bundle.configs} == names | ({"early_exit.yaml"} if bundle is TISSUE else set())
    assert len(bundle.overlays) >= 16


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


@every_config
def test_lines_fit_a_page(path):
    # An expression cannot be broken; everything else can.
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not re.match(r"[-\w# :]*\"?\$", line)] == []


@every_config_with_constants
def test_every_constant_is_used(name, bundle: Bundle):
    path = bundle.config_folder / name
    config = read(path)
    used = {found[1:].split("#")[0] for _, text in texts(path) for found in REFERENCE.findall(text)}
    assert set(constants(path)) - used == set()
    assert {found for found in used if found not in config} == set()


@every_config_with_constants
def test_options_of_the_command_line_are_checked(name, bundle: Bundle):
    initialize = read(bundle.config_folder / name)["initialize"]
    assert {"_target_": "tral_monai.command_line.check_command_line"} in initialize


@every_bundle
def test_multi_gpu_training_checks_options_too(bundle: Bundle):
    config = read(bundle.config_folder / "multi_gpu_train.yaml")
    assert config["initialize"][0] == {"_target_": "tral_monai.command_line.check_command_line"}


@every_bundle
def test_active_learning_trains_as_train_yaml_does(bundle: Bundle):
    rounds, training = (constants(bundle.config_folder / f"{name}.yaml") for name in ("active_learning", "train"))
    shared = set(rounds) & set(training) - OWN
    assert {name: rounds[name] for name in shared} == {name: training[name] for name in shared}
    assert len(shared) > 18


@every_bundle
def test_active_learning_overrides_what_train_yaml_has(bundle: Bundle):
    overrides = read(bundle.config_folder / "active_learning.yaml")["train_overrides"]
    training = constants(bundle.config_folder / "train.yaml")
    assert set(overrides) - set(training) == set()
    assert set(training) - OF_THE_ROUND - {"val_interval"} == set(overrides)


@every_bundle
@pytest.mark.parametrize(
    ("name", "other"), [("evaluate.yaml", "active_learning.yaml"), ("inference.yaml", "evaluate.yaml")]
)
def test_a_constant_means_the_same_everywhere(name, other, bundle: Bundle):
    ours, theirs = constants(bundle.config_folder / name), constants(bundle.config_folder / other)
    shared = set(ours) & set(theirs) - OWN - ({"num_workers"} if name == "inference.yaml" else set())  # threads there
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


@pytest.mark.parametrize("other", ["evaluate.yaml", "inference.yaml"])
def test_an_exit_gate_is_calibrated_on_the_tiles_and_by_the_rules_of_the_others(other):
    ours, theirs = constants(TISSUE.config_folder / "early_exit.yaml"), constants(TISSUE.config_folder / other)
    shared = set(ours) & set(theirs) - OWN - {"num_workers"}  # inference.yaml's are threads
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}
    assert len(shared) > 5


@every_overlay
def test_an_overlay_changes_constants_that_exist(overlay):
    for config in meant_for(overlay):
        known = set(constants(config))
        assert set(read(overlay)) <= known, f"{overlay.name} on {config.name}"
