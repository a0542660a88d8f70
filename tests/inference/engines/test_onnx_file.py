# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from importlib import metadata
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
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of a network; an export takes seconds."""
    folder = tmp_path_factory.mktemp("engines") / "cache"
    with onnx_file(TwoOutputs().eval(), tiles(2), EngineSettings("onnxruntime", cache_dir=folder)):
        return folder


def test_a_cached_file_is_used_again(cache: Path) -> None:
    network = TwoOutputs().eval()
    (path,) = cache.iterdir()
    assert path.name == f"{cache_key(network, tiles(1))}.onnx"
    written = path.stat().st_mtime_ns
    with onnx_file(network, tiles(2), EngineSettings("openvino", cache_dir=cache)) as again:
        assert again == path
        assert again.stat().st_mtime_ns == written


def test_a_damaged_cached_file_is_told_with_what_to_do(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (path,) = cache.iterdir()
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-99])
    message = (
        r"engine onnxruntime cannot run this network in fp32 \(InvalidProtobuf: .*\); use engine torch, or remove the "
        "files of the engine's cache if they may be damaged"
    )
    with pytest.raises(ConfigError, match=message):
        compile_module(TwoOutputs().eval(), tiles(2), EngineSettings("onnxruntime", cache_dir=tmp_path))


@pytest.mark.slow  # two processes that import torch and export
def test_two_processes_may_write_at_once_and_what_a_killed_one_left_is_not_used(cache: Path, tmp_path: Path) -> None:
    (path,) = cache.iterdir()
    left = tmp_path / f".part-0123456789ab-{path.name}"
    left.write_bytes(path.read_bytes()[:99])
    code = (
        "import sys\n"
        "from tests.inference.engines.tiny import TwoOutputs, tiles\n"
        "from tral_monai.inference.engines.compile_module import compile_module\n"
        "from tral_monai.inference.engines.settings import EngineSettings\n"
        "settings = EngineSettings('onnxruntime', cache_dir=sys.argv[1])\n"
        "run = compile_module(TwoOutputs().eval(), tiles(2), settings)\n"
        "assert run(tiles(3))[0].shape == (3, 4)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert {file.name for file in tmp_path.iterdir()} == {path.name, left.name}


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


class _NotSaved(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor([value]), persistent=False)


def test_the_key_knows_buffers_that_no_checkpoint_holds() -> None:
    assert cache_key(_NotSaved(1.0), tiles(2)) == cache_key(_NotSaved(1.0), tiles(2))
    assert cache_key(_NotSaved(1.0), tiles(2)) != cache_key(_NotSaved(2.0), tiles(2))


@pytest.mark.parametrize("package", ["tral_monai", "torch", "onnxscript", "tensorrt"])
def test_the_key_knows_the_libraries_versions(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return cache_key(TwoOutputs().eval(), tiles(2), packages=("tensorrt",))

    before, version = key(), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == package else version(name))
    assert key() != before


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
