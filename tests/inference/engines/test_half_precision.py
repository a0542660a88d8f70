# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from tests.inference.engines.tiny import TwoOutputs, tiles
from tral_monai.inference.engines.half_precision import half_precision
from tral_monai.networks.backbones import build_backbone
from tral_monai.networks.seeding import seeded
from tral_monai.networks.tri_cnn import TriCNN


def test_convolutions_are_cast_and_what_decides_is_not() -> None:
    cast = half_precision(TwoOutputs().eval(), tiles(1), "bf16")
    dtypes = {name: value.dtype for name, value in cast.state_dict().items()}
    assert dtypes["convolutions.0.weight"] == dtypes["convolutions.3.bias"] == torch.bfloat16
    assert dtypes["hidden.weight"] == torch.bfloat16
    assert dtypes["head.weight"] == dtypes["mean"] == dtypes["convolutions.1.running_var"] == torch.float32
    logits, _ = cast(tiles(2))
    assert logits.dtype == torch.float32


def test_features_are_standardised_in_fp32() -> None:
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", tile_px=32, feature_norm="batch", seed=0).eval()
    cast = half_precision(network, torch.zeros(1, 9, 32, 32, dtype=torch.uint8), "bf16")
    assert cast.head[0].running_mean.dtype == torch.float32
    assert cast.head[0](torch.ones(2, network.num_features, dtype=torch.bfloat16)).dtype == torch.float32


def _torchvision_transformer() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5)


def _timm_convnext() -> nn.Module:
    return build_backbone("timm:convnext_atto", tile_px=32)[0]


@pytest.mark.parametrize("build", [_torchvision_transformer, _timm_convnext])
def test_attention_and_layer_norms_run_without_autocast(
    build: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    with seeded(0):
        network = build().eval()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)  # torchvision starts its last layer at zero
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING), torch.no_grad():
        outputs = half_precision(network, images, "bf16")(images)
        expected = network(images)
    assert not caplog.records
    assert 0 < (outputs.float() - expected).norm() < 0.05 * expected.norm()


class _Borrows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.second(batch) @ self.first.weight


def test_layers_that_use_others_weights_get_autocast(caplog: pytest.LogCaptureFixture) -> None:
    with seeded(0):
        network = _Borrows().eval()
    batch = torch.eye(4)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        cast = half_precision(network, batch, "bf16")
        torch.testing.assert_close(cast(batch).float(), network(batch), rtol=2e-2, atol=2e-2)
    assert "autocast in every call instead" in caplog.text
