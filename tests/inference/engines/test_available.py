# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from tral_monai.errors import ConfigError, MissingExtraError
from tral_monai.inference.engines.available import _PACKAGES, list_engines, require_engine
from tral_monai.inference.engines.settings import EngineName, Precision


def test_every_engine_in_every_precision_is_listed() -> None:
    rows = list_engines("cpu")
    assert len({(row.name, row.precision) for row in rows}) == 15
    assert rows[0].reason is None
    assert rows[0].note == "the reference"
    assert all(row.reason for row in rows if row.precision == "fp16")


@pytest.mark.parametrize(
    ("name", "precision", "device", "message"),
    [
        ("torch", "fp16", "cpu", "engine torch cannot run in fp16 on cpu: fp16 is for GPUs; on a CPU use bf16"),
        ("onnxruntime", "bf16", "cpu", "ONNX Runtime has no bf16 convolutions for x86 CPUs; use fp32"),
    ],
)
def test_what_a_cpu_cannot_do(name: EngineName, precision: Precision, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_engine(name, precision, device)


def test_cpu_engines_on_another_device() -> None:
    with pytest.raises(ConfigError, match="it is an engine for CPUs here; on a GPU use torch, compile or tensorrt"):
        require_engine("openvino", "fp32", "meta")


def test_openvino_bf16_needs_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="OpenVINO needs a CPU with bf16 instructions"):
        require_engine("openvino", "bf16", "cpu")
    note = next(row.note for row in list_engines() if (row.name, row.precision) == ("torch", "bf16"))
    assert note == "this CPU has no bf16 instructions: slower than fp32"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    pytest.importorskip("onnxscript")
    message = r"engine openvino \(not installed: openvino\) needs an optional part: pip install 'tral_monai\[export\]'"
    with pytest.raises(MissingExtraError, match=message):
        require_engine("openvino", "fp32", "cpu")
    reason = next(row.reason for row in list_engines() if (row.name, row.precision) == ("openvino", "fp32"))
    assert reason is not None
    assert "not installed: openvino" in reason


def test_every_extra_that_is_named_is_there_and_names_its_packages() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    for packages, extra in _PACKAGES.values():
        (line,) = re.findall(rf"^{extra} = \[(.*?)\]", text, flags=re.MULTILINE)
        distributions = {"cuda": "cuda-python"}
        assert {f'"{distributions.get(name, name)}"' for name in packages} <= set(line.split(", "))


def test_tests_do_without_tensorrt() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^EXTRAS \?= (.*)$", makefile, flags=re.MULTILINE) == ["demo,dev,export"]
