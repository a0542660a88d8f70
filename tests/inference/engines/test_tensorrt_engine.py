# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tests.inference.engines.tiny import TwoOutputs, tiles
from tral_monai.errors import ConfigError
from tral_monai.inference.agreement import measure_agreement
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.settings import EngineSettings


def test_a_cpu_is_refused() -> None:
    message = "engine tensorrt cannot run in fp16 on cpu: TensorRT needs an NVIDIA GPU; on a CPU use torch, compile"
    with pytest.raises(ConfigError, match=message):
        compile_module(TwoOutputs().eval(), tiles(2), EngineSettings("tensorrt", "fp16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="torch sees no CUDA device; choose device cpu"):
        compile_module(TwoOutputs().eval(), tiles(2), EngineSettings("tensorrt"), device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_batch_size_on_a_gpu(precision: str) -> None:
    pytest.importorskip("tensorrt")
    pytest.importorskip("polygraphy")
    network = TwoOutputs().eval().cuda()
    run = compile_module(network, tiles(4).cuda(), EngineSettings("tensorrt", precision), device="cuda")  # type: ignore[arg-type]
    for count in (4, 1, 3, 9, 0):
        batch = tiles(count, seed=count).cuda()
        logits, features = run(batch)
        assert tuple(logits.shape) == (count, 4)
        assert tuple(features.shape) == (count, 8)
        if count:
            with torch.no_grad():
                assert measure_agreement(network(batch)[0], logits).largest_probability_difference < 0.02
