# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.inference.colour_slides import ColourNet
from tests.inference.early_exit.small_networks import random_gate, small_network
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.early_exit.early_exit_model import EarlyExitModel
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.early_exit.low_branches import low_feature_columns
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import TileOutputs
from tral_monai.networks.tri_cnn import TriCNN

TILES = 12


@pytest.fixture(scope="module")
def block() -> DeviceBlock:
    """Twelve tiles in three canvases of noise; no two are alike."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.linspace(20, 255, 400)[:, None, None]
    canvases = tuple((torch.rand(400, 400, 3, generator=generator) * contrast).to(torch.uint8) for _ in range(3))
    starts = torch.stack([torch.randint(0, 34, (TILES, 2), generator=generator) * 8 for _ in range(3)])
    return DeviceBlock(canvases, starts, 128)


def part(block: DeviceBlock, rows: torch.Tensor) -> DeviceBlock:
    return dataclasses.replace(block, starts_px=block.starts_px[:, rows])


def run(model: EarlyExitModel, block: DeviceBlock) -> TileOutputs:
    told: list[int] = []
    with torch.inference_mode():
        outputs = model(block, want_features=False, done=told.append)
    assert sum(told) == len(block)
    return outputs


def half_gate(network: TriCNN, block: DeviceBlock) -> tuple[ExitGate, torch.Tensor]:
    """A gate through which half of the tiles go, and which these are."""
    gate = random_gate(network)
    with torch.inference_mode():
        features = network.features(block.tiles(slice(None)))[:, low_feature_columns(network)]
    gate = dataclasses.replace(gate, weight=gate.weight / features.std(dim=0).clamp(min=1e-3) / 30)
    confidence = gate.log_probabilities(features).exp().max(dim=1).values
    order = confidence.sort(descending=True).values
    gate = dataclasses.replace(gate, threshold=float((order[TILES // 2 - 1] + order[TILES // 2]) / 2))
    return gate, confidence >= gate.threshold


def expected(network: TriCNN, gate: ExitGate, block: DeviceBlock, exits: torch.Tensor) -> torch.Tensor:
    image = block.tiles(slice(None))
    with torch.inference_mode():
        early = gate.log_probabilities(network.features(image)[:, low_feature_columns(network)])
        return torch.where(exits[:, None], early, network(image))


NETWORKS = {
    "paper's order": {},
    "another order": {"magnifications": (2.5, 40, 10)},
    "shared weights": {"share_weights": True},
    "dense": {"backbone": "timm:tf_efficientnet_lite0", "context": "dense"},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_half_exit_and_the_others_get_the_full_model(options, block):
    network = small_network(**options)
    gate, exits = half_gate(network, block)
    outputs = run(EarlyExitModel(network, gate, batch_size=4), block)
    assert int(exits.sum()) == TILES // 2
    assert outputs.computed == {"tiles": TILES, "exited": TILES // 2}
    assert outputs.features is None
    torch.testing.assert_close(outputs.logits, expected(network, gate, block, exits), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def network() -> TriCNN:
    return small_network()


@pytest.mark.parametrize(("threshold", "exited"), [(None, 0), (0.0, TILES)])
def test_the_highest_magnification_is_computed_only_where_it_is_asked_for(threshold, exited, network, block):
    seen: list[int] = []
    hook = network.branches[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    gate = random_gate(network, threshold=threshold)
    outputs = run(EarlyExitModel(network, gate, batch_size=5), block)
    hook.remove()
    assert outputs.computed["exited"] == exited
    assert sum(seen) == TILES - exited
    wanted = expected(network, gate, block, torch.full((TILES,), exited > 0))
    torch.testing.assert_close(outputs.logits, wanted, atol=1e-4, rtol=1e-4)


def test_neither_batches_nor_the_order_of_tiles_change_a_result(network, block):
    gate, _ = half_gate(network, block)
    whole = run(EarlyExitModel(network, gate, batch_size=64), block).logits
    single = run(EarlyExitModel(network, gate, batch_size=1), block).logits
    torch.testing.assert_close(single, whole, atol=1e-4, rtol=1e-4)
    order = torch.randperm(TILES, generator=torch.Generator().manual_seed(3))
    model = EarlyExitModel(network, gate, batch_size=3)
    parts = torch.cat([run(model, part(block, rows)).logits for rows in order.split(5)])
    torch.testing.assert_close(parts, whole[order], atol=1e-4, rtol=1e-4)


def test_another_engine_runs_the_branches(network, block):
    gate, exits = half_gate(network, block)
    gate = dataclasses.replace(gate, threshold=None)
    model = EarlyExitModel(network, gate, engine=EngineSettings(precision="bf16"), batch_size=8)
    exact = expected(network, gate, block, torch.zeros_like(exits))
    rounded = run(model, block).logits
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded.softmax(1), exact.softmax(1), atol=0.05, rtol=0)
    assert model.settings()["precision"] == "bf16"


def test_tiles_that_do_not_exit_and_are_close_are_asked_again_in_full_precision(network, block):
    gate = random_gate(network, threshold=None, undefined_below=0.0, damaged_at_least=0.0)
    exact = expected(network, gate, block, torch.zeros(TILES, dtype=torch.bool))
    every = EarlyExitModel(network, gate, engine=EngineSettings(precision="bf16", recheck_margin=1.0), batch_size=8)
    found = run(every, block)
    torch.testing.assert_close(found.logits, exact, atol=1e-4, rtol=1e-4)
    assert found.computed == {"tiles": TILES, "exited": 0, "rechecked": TILES}
    assert every.settings()["recheck_margin"] == 1.0
    gaps = exact.softmax(1).topk(2, dim=1).values
    margin = float((gaps[:, 0] - gaps[:, 1]).median())
    some = run(
        EarlyExitModel(network, gate, engine=EngineSettings(precision="bf16", recheck_margin=margin), batch_size=8),
        block,
    )
    same = torch.isclose(some.logits, exact, atol=1e-6, rtol=1e-5).all(dim=1)
    assert 0 < some.computed["rechecked"] < TILES
    assert int(same.sum()) == some.computed["rechecked"]


def test_the_gates_rules_of_the_map_say_what_is_close(network, block):
    def rechecked(undefined_below: float) -> int:
        gate = random_gate(network, threshold=None, undefined_below=undefined_below, damaged_at_least=0.0)
        engine = EngineSettings(precision="bf16", recheck_margin=1e-6)
        return run(EarlyExitModel(network, gate, engine=engine, batch_size=4), block).computed["rechecked"]

    gate = random_gate(network, threshold=None)
    with torch.inference_mode():
        model = EarlyExitModel(network, gate, engine=EngineSettings(precision="bf16", recheck_margin=0.0), batch_size=4)
        best = run(model, block).logits.softmax(1).max(dim=1).values
    assert rechecked(0.0) == 0
    assert rechecked(float(best[0])) >= 1


def test_tiles_that_exit_are_not_asked_again_and_full_precision_never(network, block):
    half = EngineSettings(precision="bf16", recheck_margin=1.0)
    outputs = run(EarlyExitModel(network, random_gate(network), engine=half, batch_size=4), block)
    assert outputs.computed == {"tiles": TILES, "exited": TILES, "rechecked": 0}
    for engine in (EngineSettings(), EngineSettings(precision="bf16", recheck_margin=0.0)):
        model = EarlyExitModel(network, random_gate(network), engine=engine, batch_size=4)
        assert "recheck_margin" not in model.settings()
        assert "rechecked" not in run(model, block).computed


def test_a_network_that_is_moved_afterwards_takes_its_normalisation_along(block):
    network = small_network()
    gate, exits = half_gate(network, block)
    model = EarlyExitModel(network, gate)
    wanted = expected(network, gate, block, exits)
    network.double()
    torch.testing.assert_close(run(model, block).logits, wanted, atol=1e-4, rtol=1e-4)


def test_engines_are_made_for_whole_batches(network, block):
    seen: list[int] = []
    hook = network.branches[1].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    engine = EngineSettings(precision="bf16", recheck_margin=0.0)
    model = EarlyExitModel(network, random_gate(network, threshold=None), engine=engine, batch_size=5)
    run(model, part(block, torch.tensor([0, 1])))
    hook.remove()
    assert seen == [1, 5, 2]  # the cast is tried, then the engine with its example, then the block


def test_a_reset_checks_the_gate_and_drops_what_was_made_of_the_weights(block):
    network = small_network()
    engine = EngineSettings(precision="bf16", recheck_margin=0.0)
    model = EarlyExitModel(network, random_gate(network, threshold=None), engine=engine, batch_size=4)
    before = run(model, block).logits
    model.reset()
    assert torch.equal(run(model, block).logits, before)
    with torch.no_grad():
        for branch in network.branches:
            for parameter in branch.parameters():
                parameter.mul_(1.5)
    assert torch.equal(run(model, block).logits, before)
    with pytest.raises(CheckpointError, match="the exit gate was made for the weights"):
        model.reset()
    model.gate = random_gate(network, threshold=None)
    model.reset()
    assert not torch.allclose(run(model, block).logits, before, atol=0.01)


def test_a_gate_decides_results_and_so_is_among_the_settings(network, tmp_path):
    path = random_gate(network, threshold=0.75).save(tmp_path / "exit_gate.pt")
    model = EarlyExitModel(network, path, batch_size=7)
    assert model.settings() == {
        "engine": "torch",
        "precision": "fp32",
        "exit_gate": {"sha256": random_gate(network, threshold=0.75).sha256, "threshold": 0.75},
    }
    assert model.runtime()["batch_size"] == 7


def test_features_are_refused(network, block):
    model = EarlyExitModel(network, random_gate(network))
    with pytest.raises(ConfigError, match="set either save_features or early_exit, not both"):
        model(block, want_features=True, done=lambda count: None)


def test_another_kind_of_network_is_refused(network):
    with pytest.raises(ConfigError, match="early exit needs a TriCNN, .* but the network is a ColourNet"):
        EarlyExitModel(ColourNet(), random_gate(network))


def test_the_gate_of_another_network_is_refused(network):
    with pytest.raises(CheckpointError, match="the exit gate was made for the weights"):
        EarlyExitModel(small_network(seed=5), random_gate(network))
