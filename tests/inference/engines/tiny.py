# SPDX-License-Identifier: Apache-2.0
"""The smallest networks that have what engines differ in: uint8 pixels in, convolutions, two outputs."""

from __future__ import annotations

import torch
from torch import nn

from tral_monai.networks.seeding import seeded


class TwoOutputs(nn.Module):
    """(B, 3, H, W) uint8 to (B, 4) logits and (B, 8) features, with a mean that bf16 cannot hold."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.convolutions = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()
            )
            self.hidden, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.convolutions((image.to(self.mean.dtype) - self.mean) / 57.0).mean(dim=(2, 3))
        return self.head(torch.relu(self.hidden(features))), features


def tiles(count: int, *, seed: int = 0, px: int = 16) -> torch.Tensor:
    """(count, 3, px, px) uint8 noise."""
    return torch.randint(0, 256, (count, 3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def check_engine(name: str, precision: str, *, tolerance: float) -> None:
    """Every batch size gives what the network itself gives, which stays as it was."""
    from tral_monai.inference.engines.compile_module import compile_module
    from tral_monai.inference.engines.settings import EngineSettings

    network = TwoOutputs().eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    run = compile_module(network, tiles(4), EngineSettings(name, precision))  # type: ignore[arg-type]
    for count in (4, 1, 3, 7, 0):
        batch = tiles(count, seed=count)
        with torch.no_grad():
            expected = network(batch)
        outputs = run(batch)
        assert [tuple(output.shape) for output in outputs] == [(count, 4), (count, 8)]
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.dtype == torch.float32
            torch.testing.assert_close(output, wanted, rtol=tolerance, atol=tolerance)
    first = run(tiles(3, seed=1))[0]
    kept = first.clone()
    run(tiles(3, seed=2))
    assert torch.equal(first, kept)  # no buffer that the next batch overwrites
    after = network.state_dict()
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())
    assert all(not part._forward_pre_hooks for part in network.modules())
