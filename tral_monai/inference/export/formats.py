# SPDX-License-Identifier: Apache-2.0
"""The formats that a network is exported to: how each is written, which files it has, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tral_monai.errors import ConfigError
from tral_monai.inference.export.deployable import Deployable, Run
from tral_monai.inference.export.onnx_format import NAME as ONNX_NAME
from tral_monai.inference.export.onnx_format import OnnxFile, write_onnx
from tral_monai.inference.export.openvino_format import NAME as XML_NAME
from tral_monai.inference.export.openvino_format import WEIGHTS_NAME as BIN_NAME
from tral_monai.inference.export.openvino_format import OpenVinoFile, write_openvino
from tral_monai.inference.export.torch_formats import (
    PT2_NAME,
    TORCHSCRIPT_NAME,
    Pt2File,
    TorchScriptFile,
    write_pt2,
    write_torchscript,
)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        files: what it writes into ``models``.
        write: writes them.
        open: gives something that runs them.
    """

    files: tuple[str, ...]
    write: Callable[[Deployable, Path], None]
    open: Callable[[Path], Run]


FORMATS = {
    "onnx": Format((ONNX_NAME,), write_onnx, OnnxFile),
    "openvino": Format((XML_NAME, BIN_NAME), write_openvino, OpenVinoFile),
    "torchscript": Format((TORCHSCRIPT_NAME,), write_torchscript, TorchScriptFile),
    "pt2": Format((PT2_NAME,), write_pt2, Pt2File),
}


def chosen_formats(names: Sequence[str], deployable: Deployable) -> tuple[str, ...]:
    """The names in the order in which files are written.

    Args:
        names: of formats; none is fine.
        deployable: the network.

    Raises:
        ConfigError: there is no such format, or the network cannot be held by it.
    """
    unknown = sorted(set(names) - set(FORMATS))
    if unknown:
        raise ConfigError(f"formats must be of {', '.join(FORMATS)}, but {', '.join(unknown)} is asked for")
    for name in names:
        if name in deployable.refused:
            raise ConfigError(f"this network cannot be exported to {name}: {deployable.refused[name]}")
    return tuple(name for name in FORMATS if name in names)
