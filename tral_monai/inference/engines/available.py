# SPDX-License-Identifier: Apache-2.0
"""Which engines this machine can run, in which precision, and why not the others."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass

import torch

from tral_monai.errors import ConfigError, MissingExtraError
from tral_monai.inference.engines.settings import ENGINES, PRECISIONS, EngineName, Precision

# What each engine imports, and the extra that brings it.
_PACKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "export"),
    "openvino": (("onnx", "onnxscript", "openvino"), "export"),
    "tensorrt": (("onnx", "onnxscript", "tensorrt", "polygraphy", "cuda"), "tensorrt"),
}


@dataclass(frozen=True)
class Availability:
    """Whether an engine runs here.

    Attributes:
        name: the engine.
        precision: its precision.
        reason: why it does not run, or None.
        note: what else to know, such as that it will be slow.
    """

    name: EngineName
    precision: Precision
    reason: str | None = None
    note: str = ""


def require_engine(name: EngineName, precision: Precision, device: torch.device | str) -> None:
    """Check that an engine runs on a device.

    Args:
        name: the engine.
        precision: its precision.
        device: where the network is to run.

    Raises:
        ConfigError: it does not; the message says why and what does.
        MissingExtraError: a package is missing.
    """
    kind = torch.device(device).type
    reason = _reason(name, precision, kind)
    if reason is not None:
        raise ConfigError(f"engine {name} cannot run in {precision} on {kind}: {reason}")
    packages, extra = _PACKAGES.get(name, ((), ""))
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(f"engine {name} (not installed: {', '.join(missing)})", extra)


def list_engines(device: torch.device | str = "cpu") -> list[Availability]:
    """Every engine in every precision, with what speaks against it here.

    Args:
        device: where the network is to run.
    """
    kind = torch.device(device).type
    rows = []
    for name in ENGINES:
        for precision in PRECISIONS:
            try:
                require_engine(name, precision, device)
            except MissingExtraError as error:
                rows.append(Availability(name, precision, str(error)))
            except ConfigError as error:
                rows.append(Availability(name, precision, str(error).partition(": ")[2]))
            else:
                rows.append(Availability(name, precision, note=_note(name, precision, kind)))
    return rows


def _reason(name: EngineName, precision: Precision, kind: str) -> str | None:
    if kind == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device; choose device cpu"
    if name in ("onnxruntime", "openvino") and kind != "cpu":
        return "it is an engine for CPUs here; on a GPU use torch, compile or tensorrt"
    if name == "tensorrt" and kind != "cuda":
        return "TensorRT needs an NVIDIA GPU; on a CPU use torch, compile, onnxruntime or openvino"
    if precision == "fp16" and kind == "cpu":
        return "fp16 is for GPUs; on a CPU use bf16 (torch, compile, openvino) or fp32"
    if name == "onnxruntime" and precision != "fp32":
        return "ONNX Runtime has no bf16 convolutions for x86 CPUs; use fp32, or openvino or torch in bf16"
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU has no bf16; use fp16 or fp32"
    if name == "openvino" and precision == "bf16" and not _has_bf16():
        return "OpenVINO needs a CPU with bf16 instructions for that and would run fp32; use fp32"
    if name == "compile" and kind == "cpu" and _compiler() is None:
        return (
            "torch.compile needs a C++ compiler, but there is no g++ or clang++ (set CXX to another); install one, or "
            "use torch, onnxruntime or openvino"
        )
    return None


def _note(name: EngineName, precision: Precision, kind: str) -> str:
    if name == "torch" and precision == "fp32":
        return "the reference"
    if precision == "bf16" and kind == "cpu" and not _has_bf16():
        return "this CPU has no bf16 instructions: slower than fp32"
    return ""


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())


def _compiler() -> str | None:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    if sys.platform == "win32":
        names.append("cl")
    return next((found for name in names if (found := shutil.which(name.split()[0]))), None)
