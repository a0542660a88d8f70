# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.inferer import Inferer, SimpleInferer

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import LogitsAndFeatures, PerTileModel
from tral_monai.networks.tri_cnn import TriCNN


@pytest.fixture(scope="module")
def network() -> TriCNN:
    return TriCNN(["a", "b", "c"], backbone="timm:mobilenetv3_small_050", hidden=(8,), seed=0).eval()


@pytest.fixture(scope="module")
def block() -> DeviceBlock:
    rng = np.random.default_rng(0)
    canvases = tuple(torch.from_numpy(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)) for _ in range(3))
    return DeviceBlock(canvases, torch.from_numpy(rng.integers(0, 72, (3, 7, 2))), 128)


def test_batches_change_nothing_and_progress_counts_tiles(network: TriCNN, block: DeviceBlock) -> None:
    done: list[int] = []
    with torch.inference_mode():
        by_hand = network(block.tiles(slice(None)))
        outputs = PerTileModel(network, batch_size=3)(block, done=done.append)
    assert torch.allclose(outputs.logits, by_hand, atol=1e-4)
    assert outputs.features is None
    assert done == [3, 3, 1]


def test_features_are_those_that_the_logits_come_from(network: TriCNN, block: DeviceBlock) -> None:
    with torch.inference_mode():
        outputs = PerTileModel(network)(block, want_features=True, done=lambda tiles: None)
        assert outputs.features is not None
        assert torch.allclose(outputs.features, network.features(block.tiles(slice(None))), atol=1e-5)
        assert torch.allclose(outputs.logits, network.head(outputs.features), atol=1e-5)
        logits, features = LogitsAndFeatures(network)(block.tiles(slice(None)))
    assert torch.allclose(logits, outputs.logits, atol=1e-5)
    assert torch.allclose(features, outputs.features, atol=1e-5)


@pytest.mark.parametrize("want_features", [False, True])
def test_another_precision_goes_through_its_engine(network: TriCNN, block: DeviceBlock, want_features: bool) -> None:
    model = PerTileModel(network, engine=EngineSettings(precision="bf16"), batch_size=4)
    with torch.inference_mode():
        fast = model(block, want_features=want_features, done=lambda tiles: None)
        exact = PerTileModel(network)(block, want_features=True, done=lambda tiles: None)
    assert fast.logits.dtype == torch.float32
    assert not torch.equal(fast.logits, exact.logits)
    assert torch.allclose(fast.logits.softmax(1), exact.logits.softmax(1), atol=0.05)
    assert (fast.features is not None) == want_features
    assert model.settings() == {"engine": "torch", "precision": "bf16"}
    assert next(network.parameters()).dtype == torch.float32


def test_an_inferer_of_the_users_runs_the_batches(network: TriCNN, block: DeviceBlock) -> None:
    class Twice(Inferer):
        def __call__(self, inputs, network, *args, **kwargs):  # type: ignore[no-untyped-def]
            return 2 * network(inputs)

    with torch.inference_mode():
        twice = PerTileModel(network, inferer=Twice())(block, done=lambda tiles: None)
        once = PerTileModel(network)(block, done=lambda tiles: None)
    assert torch.allclose(twice.logits, 2 * once.logits)
    assert PerTileModel(network, inferer=Twice()).runtime()["inferer"] == "Twice"
    assert PerTileModel(network, inferer=Twice()).settings() == {**PerTileModel(network).settings(), "inferer": "Twice"}
    assert PerTileModel(network, inferer=SimpleInferer()).settings() == {"engine": "torch", "precision": "fp32"}


def test_an_inferer_may_tell_its_own_settings(network: TriCNN) -> None:
    class Flips(SimpleInferer):
        def settings(self) -> dict[str, int]:
            return {"flips": 4}

    settings = PerTileModel(network, inferer=Flips()).settings()
    assert settings["inferer"] == "Flips"
    assert settings["inferer_settings"] == {"flips": 4}


def test_a_small_first_block_does_not_set_the_size_of_batches(network: TriCNN, block: DeviceBlock) -> None:
    seen: list[int] = []
    model = PerTileModel(network, engine=EngineSettings(precision="bf16"), batch_size=4)
    hook = network.branches[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with torch.inference_mode():
        model(block.part(torch.tensor([3])), done=lambda tiles: None)
    hook.remove()
    assert seen[-2:] == [4, 1]  # the engine's example, the block


def test_changed_weights_are_seen_after_a_reset(block: DeviceBlock) -> None:
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", hidden=(), seed=0).eval()
    model = PerTileModel(network, engine=EngineSettings(precision="bf16"), batch_size=8)

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model(block, done=lambda tiles: None).logits

    before = logits()
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter += 1.0
    assert torch.equal(logits(), before)  # what the engine made of the old weights
    model.reset()
    assert (logits() - before).abs().min() > 0.5


class _Threads(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 1), float(torch.get_num_threads()))


def test_the_threads_asked_for_hold_for_the_reference_too(block: DeviceBlock) -> None:
    before = torch.get_num_threads()
    model = PerTileModel(_Threads(), engine=EngineSettings(num_threads=before + 1))
    assert model(block, done=lambda tiles: None).logits.unique().tolist() == [before + 1]
    assert torch.get_num_threads() == before


class _Hungry(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.empty(len(image), 1 << 48)


def test_too_little_memory_is_told_with_what_to_do(block: DeviceBlock) -> None:
    with pytest.raises(ConfigError, match=r"batches of 5 tiles \(RuntimeError\); lower predict_batch_size"):
        PerTileModel(_Hungry(), batch_size=5)(block, done=lambda tiles: None)


def test_a_network_without_a_row_per_tile_is_refused(block: DeviceBlock) -> None:
    with pytest.raises(CheckpointError, match=r"shape \(B, classes\) for a batch of 7 tiles, but gave \(1, 9\)"):
        PerTileModel(_Wrong())(block, done=lambda tiles: None)


class _Wrong(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 9)
