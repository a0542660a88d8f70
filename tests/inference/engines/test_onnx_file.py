# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.inference.engines.tiny import TwoOutputs, tiles
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.onnx_file import cache_key, onnx_file
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.networks.tri_cnn import TriCNN

pytest.importorskip("onnxscript")


def test_a_cached_file_is_used_again(tmp_path: Path) -> None:
    settings = EngineSettings("onnxruntime", cache_dir=tmp_path / "cache")
    network = TwoOutputs().eval()
    with onnx_file(network, tiles(2), settings) as path:
        written = path.stat().st_mtime_ns
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [f"{cache_key(network, tiles(1))}.onnx"]
    with onnx_file(network, tiles(2), settings) as again:
        assert again == path
        assert again.stat().st_mtime_ns == written


def test_a_temporary_file_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with onnx_file(TwoOutputs().eval(), tiles(1), EngineSettings("openvino")) as path:
        assert path.stat().st_size > 0
    assert not path.exists()
    assert not list(tmp_path.iterdir())


def test_the_key_knows_weights_and_shape() -> None:
    network, key = TwoOutputs().eval(), cache_key(TwoOutputs().eval(), tiles(2))
    assert cache_key(network, tiles(5)) == key
    assert cache_key(network, tiles(2, px=32)) != key
    assert cache_key(TwoOutputs(seed=1).eval(), tiles(2)) != key
    network.mean += 1
    assert cache_key(network, tiles(2)) != key


def test_stain_normalisation_has_no_onnx_form() -> None:
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", tile_px=32, stain_normalization=True, seed=0)
    example = torch.zeros(1, 9, 32, 32, dtype=torch.uint8)
    message = (
        r"engine openvino cannot hold this network: its stain normalisation \(Macenko\).*use engine torch or compile"
    )
    with pytest.raises(ConfigError, match=message):
        compile_module(network.eval(), example, EngineSettings("openvino"))
    tight = compile_module(network.eval(), example, EngineSettings("torch", "bf16"))
    assert tight(example)[0].shape == (1, 2)


class _Depends(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if batch.sum() > 0 else -batch


def test_what_cannot_be_exported_is_named() -> None:
    message = (
        r"engine onnxruntime cannot hold this network, because it cannot be exported to ONNX \(.*; use engine torch"
    )
    with pytest.raises(ConfigError, match=message):
        compile_module(_Depends().eval(), torch.ones(2, 1), EngineSettings("onnxruntime"))
