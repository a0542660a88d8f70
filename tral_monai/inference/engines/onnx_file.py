# SPDX-License-Identifier: Apache-2.0
"""A module as an ONNX file for any batch size: what ONNX Runtime and OpenVINO read."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from tral_monai.atomic_file import atomic_path, prepare_folder
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.fingerprints import weights_sha256

INPUT = "batch"
_OPSET = 20
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # a line for every constant that they move
_MADE_WITH = ("tral_monai", "torch", "torchvision", "timm", "monai", "onnx", "onnxscript")


def check_exportable(module: nn.Module, engine: str) -> None:
    """Refuse what has no form outside of torch.

    Raises:
        ConfigError: a part of the network normalises stains.
    """
    if any(getattr(part, "stain_normalization", False) for part in module.modules()):
        raise ConfigError(
            f"engine {engine} cannot hold this network: its stain normalisation (Macenko) has no ONNX form; use engine "
            "torch or compile, which are as fast in bf16 or fp16 up to that step"
        )


@contextlib.contextmanager
def onnx_file(module: nn.Module, example: torch.Tensor, settings: EngineSettings) -> Iterator[Path]:
    """An ONNX file of a module, in ``settings.cache_dir`` or in a temporary folder that is gone afterwards.

    Args:
        module: the module.
        example: a batch for it.
        settings: who asks.

    Yields:
        The file; its input is called ``batch``.

    Raises:
        ConfigError: the module cannot be exported.
    """
    check_exportable(module, settings.name)
    if settings.cache_dir is None:
        with tempfile.TemporaryDirectory(prefix="tral_monai_") as folder:
            path = Path(folder) / "module.onnx"
            _export(module, example, path, settings)
            yield path
        return
    # The file is the same for every engine that reads it, of whatever version: these compile it at each start.
    path = prepare_folder(settings.cache_dir) / f"{cache_key(module, example)}.onnx"
    if not path.is_file():
        with atomic_path(path) as temporary:
            _export(module, example, temporary, settings)
    yield path


def cache_key(module: nn.Module, example: torch.Tensor, *, packages: Sequence[str] = ()) -> str:
    """What a cached file depends on: weights, structure, input, and the libraries that the network and it come from.

    Args:
        module: the module.
        example: a batch for it; its size does not count.
        packages: further distributions whose version decides what is in the file.

    Returns:
        32 hexadecimal digits.
    """
    saved = module.state_dict()
    others = {name: buffer for name, buffer in module.named_buffers() if name not in saved}  # not persistent
    parts = (
        weights_sha256(module),
        *(f"{name} {buffer.dtype} {buffer.tolist()}" for name, buffer in sorted(others.items())),
        repr(module),
        example.dtype,
        tuple(example.shape[1:]),
        _OPSET,
        *(f"{name} {_version(name)}" for name in (*_MADE_WITH, *packages)),
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _export(module: nn.Module, example: torch.Tensor, path: Path, settings: EngineSettings) -> None:
    # A batch of one would be taken for a fixed size.
    batch = example if len(example) > 1 else torch.cat([example, example])
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about things that its users cannot change
            torch.onnx.export(
                copy.deepcopy(module),
                (batch,),
                path,
                dynamo=True,
                input_names=[INPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
                opset_version=_OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter has errors of many kinds, all of which mean the same here
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"engine {settings.name} cannot hold this network, because it cannot be exported to ONNX "
            f"({type(error).__name__}: {first}); use engine torch or compile"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
