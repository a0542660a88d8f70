# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import nn

from tests.inference.engines.tiny import TwoOutputs, check_engine, tiles
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.engines.torch_engine import as_tuple


def test_every_batch_size_in_bf16() -> None:
    check_engine("torch", "bf16", tolerance=2e-2)


def test_the_reference_is_the_network_to_the_bit() -> None:
    network = TwoOutputs().eval()
    with torch.no_grad():
        expected = network(tiles(5))
    outputs = compile_module(network, tiles(2), EngineSettings())(tiles(5))
    assert all(torch.equal(output, wanted) for output, wanted in zip(outputs, expected, strict=True))


def test_one_output_comes_as_a_tuple() -> None:
    outputs = compile_module(nn.Flatten().eval(), torch.zeros(2, 3, 4), EngineSettings())(torch.ones(5, 3, 4))
    assert isinstance(outputs, tuple)
    assert [tuple(output.shape) for output in outputs] == [(5, 12)]
    assert as_tuple([torch.zeros(1), torch.ones(1)]) == (torch.zeros(1), torch.ones(1))
