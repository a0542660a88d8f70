# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.inference.engines.tiny import TwoOutputs, tiles
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.settings import EngineSettings


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="this one is in training mode; call eval()"):
        compile_module(TwoOutputs(), tiles(2), EngineSettings())


@pytest.mark.parametrize("example", [torch.zeros(0, 3), torch.zeros(3)])
def test_an_example_has_a_batch(example: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"needs an example batch \(B, \.\.\.\) of at least one item, not \("):
        compile_module(nn.Identity().eval(), example, EngineSettings())


def test_batches_of_another_kind_are_refused() -> None:
    run = compile_module(TwoOutputs().eval(), tiles(2), EngineSettings("torch", "bf16"))
    with pytest.raises(
        ConfigError, match=r"torch bf16 was made for batches of torch.uint8 \('B', 3, 16, 16\), but got"
    ):
        run(tiles(2).float())
    with pytest.raises(ConfigError, match=r"\(2, 3, 8, 8\); compile the module for this shape"):
        run(tiles(2, px=8))


class _Threads(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.full((len(batch), 1), torch.get_num_threads())


def test_threads_of_torch_are_set_for_a_call_only() -> None:
    before = torch.get_num_threads()
    run = compile_module(_Threads().eval(), torch.zeros(2, 1), EngineSettings(num_threads=before + 1))
    assert run(torch.zeros(1, 1))[0].item() == before + 1
    assert torch.get_num_threads() == before


class _Autocast(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch @ torch.full((1, 1), 257.0)  # bf16 would make 256 of it


def test_an_outer_autocast_or_inference_mode_changes_nothing() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        run = compile_module(_Autocast().eval(), torch.ones(2, 1), EngineSettings())
        assert run(torch.ones(3, 1))[0].tolist() == [[257.0]] * 3


class _NotInHalf(nn.Module):
    """bf16 has no such function."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(1, 1)
        self.last = nn.Linear(1, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.last(torch.special.bessel_j0(self.dense(batch)))


def test_what_cannot_run_is_refused_before_the_first_batch() -> None:
    network = _NotInHalf().eval()
    message = (
        r"engine torch cannot run this network in bf16 \(NotImplementedError: .*bessel_j0.*BFloat16.*\); "
        r"use precision fp32$"
    )
    with pytest.raises(ConfigError, match=message):
        compile_module(network, torch.ones(2, 1), EngineSettings(precision="bf16"))
    assert compile_module(network, torch.ones(2, 1), EngineSettings())(torch.ones(3, 1))[0].shape == (3, 1)


def test_errors_of_the_reference_stay_the_networks_own() -> None:
    run = compile_module(nn.Linear(2, 1).eval(), torch.ones(2, 3), EngineSettings())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(torch.ones(2, 3))


class _Lengths(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


@pytest.mark.parametrize(("batch_size", "expected"), [(5, 5), (2, 2), (1, 2), (None, 2)])
def test_the_example_is_repeated_up_to_the_largest_batch(batch_size: int | None, expected: int) -> None:
    network, seen = _Lengths().eval(), list[torch.Tensor]()
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    example = torch.tensor([[1.0], [2.0]])
    compile_module(network, example, EngineSettings(precision="bf16"), batch_size=batch_size)
    assert seen[-1].flatten().tolist() == [1.0, 2.0, 1.0, 2.0, 1.0][:expected]
    channels_last = torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last)
    compile_module(network, channels_last, EngineSettings(precision="bf16"), batch_size=3)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
