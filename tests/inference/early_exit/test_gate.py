# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.inference.early_exit.small_networks import random_gate, small_network
from tral_monai.errors import CheckpointError, ConfigError, OutputError
from tral_monai.inference.early_exit.gate import ExitGate


@pytest.fixture(scope="module")
def network():
    return small_network()


def by_hand(network, **changes) -> ExitGate:
    """Reads one feature: logits 2 x, 0, 0 at temperature 2."""
    weight = torch.tensor([[2.0], [0.0], [0.0]])
    return random_gate(network, weight=weight, bias=torch.zeros(3), **changes)


def test_the_early_decision_is_softened_by_the_temperature(network):
    # x = ln 8: 8 : 1 : 1; x = 0: a third each; x = -ln 8: 1 : 8 : 8.
    features = torch.tensor([[8.0], [1.0], [1 / 8]]).log()
    probabilities = by_hand(network).log_probabilities(features).exp()
    expected = torch.tensor([[8.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 8.0, 8.0]])
    torch.testing.assert_close(probabilities, expected / expected.sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("threshold", "exits"),
    [(0.9, [False, False]), (0.79, [True, False]), (0.3, [True, True]), (None, [False, False])],
)
def test_tiles_that_are_sure_enough_exit(threshold, exits, network):
    gate = by_hand(network, threshold=threshold)
    assert gate.exits(gate.log_probabilities(torch.tensor([[8.0], [1.0]]).log())).tolist() == exits


@pytest.mark.parametrize("threshold", [0.75, None])
def test_it_is_read_as_it_was_written(threshold, network, tmp_path):
    gate = random_gate(network, threshold=threshold)
    gate.save(tmp_path / "exit_gate.pt")
    read = ExitGate.load(tmp_path / "exit_gate.pt")
    for field in dataclasses.fields(gate):
        written, found = getattr(gate, field.name), getattr(read, field.name)
        assert torch.equal(written, found) if isinstance(written, torch.Tensor) else written == found
    assert read.sha256 == gate.sha256
    read.check(network)
    read.check_rules(undefined_below=0.6, damaged_at_least=0.9)
    assert [path.name for path in tmp_path.iterdir()] == ["exit_gate.pt"]


@pytest.mark.parametrize(
    "change", [{"threshold": 0.5}, {"temperature": 1.0}, {"bias": torch.zeros(3)}, {"magnifications": (2.5, 10.0)}]
)
def test_its_hash_changes_with_what_decides(change, network):
    assert random_gate(network, **change).sha256 != random_gate(network).sha256


def test_its_hash_does_not_change_with_what_is_told_about_it(network):
    assert random_gate(network, calibration={}).sha256 == random_gate(network).sha256


def test_another_network_is_refused(network):
    with pytest.raises(
        CheckpointError, match=r"made for the weights \w{12}, but the network has \w{12}; make one with"
    ):
        random_gate(network).check(small_network(seed=1))


def test_another_context_is_refused(network):
    with pytest.raises(CheckpointError, match="made for context 'dense', but the network has 'tile'; make one"):
        random_gate(network, context="dense").check(network)


def test_other_rules_of_the_map_are_refused(network):
    gate = random_gate(network)
    with pytest.raises(
        ConfigError, match=r"with undefined_below 0\.6, but the map is made with 0\.5; make one .* --und"
    ):
        gate.check_rules(undefined_below=0.5, damaged_at_least=0.9)
    with pytest.raises(ConfigError, match=r"with damaged_at_least 0\.9, but the map is made with 0\.0"):
        gate.check_rules(undefined_below=0.6, damaged_at_least=0.0)


def test_the_rule_for_damaged_matters_only_where_there_is_such_a_class(network):
    gate = random_gate(network, classes=("Stroma", "Muscle", "Blood"))
    gate.check_rules(undefined_below=0.6, damaged_at_least=0.0)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        CheckpointError, match="there is no exit gate '.*none.pt'; make one with the bundle's early_exit"
    ):
        ExitGate.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "tral_monai.TriCNN"}, "is not an exit gate"),
        ({"format_version": 2}, "has format version 2, this package .* reads 1"),
        ({"weight": None}, "lacks weight"),
    ],
)
def test_another_file_is_refused(change, message, network, tmp_path):
    path = random_gate(network).save(tmp_path / "gate.pt")
    content = {**torch.load(path, weights_only=True), **change}
    torch.save({name: value for name, value in content.items() if value is not None or name == "threshold"}, path)
    with pytest.raises(CheckpointError, match=message):
        ExitGate.load(path)


def test_a_truncated_file_is_refused(network, tmp_path):
    path = random_gate(network).save(tmp_path / "gate.pt")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"gate\.pt cannot be read as an exit gate"):
        ExitGate.load(path)


def test_a_folder_that_is_not_there(network, tmp_path):
    with pytest.raises(OutputError, match=r"cannot write exit_gate\.pt"):
        random_gate(network).save(tmp_path / "none" / "exit_gate.pt")
