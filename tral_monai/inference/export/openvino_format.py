# SPDX-License-Identifier: Apache-2.0
"""``model.xml`` and ``model.bin``: the network for OpenVINO."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import MissingExtraError
from tral_monai.inference.export.deployable import INPUT, Deployable, Tiles
from tral_monai.inference.export.onnx_format import NAME as ONNX_NAME
from tral_monai.inference.export.onnx_format import write_onnx

NAME, WEIGHTS_NAME = "model.xml", "model.bin"


def write_openvino(deployable: Deployable, folder: Path) -> None:
    """Write ``model.xml`` and ``model.bin`` in full precision; OpenVINO lowers it when it runs, where it is told to.

    Args:
        deployable: the network.
        folder: where to; a ``model.onnx`` in it is used.

    Raises:
        MissingExtraError: the packages for it are not installed.
        ConfigError: the exporter does not take the network.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("exporting to OpenVINO", "export") from error
    with tempfile.TemporaryDirectory(prefix="tral_monai_") as temporary:
        source = folder if (folder / ONNX_NAME).is_file() else Path(temporary)
        if not (source / ONNX_NAME).is_file():
            write_onnx(deployable, source)
        model = openvino.convert_model(str(source / ONNX_NAME))
        for key, value in deployable.metadata().items():
            model.set_rt_info(value, ["tral_monai", key])
        openvino.save_model(model, str(folder / NAME), compress_to_fp16=False)


class OpenVinoFile:
    """Runs ``model.xml`` on the CPU in full precision.

    Args:
        folder: where the files are.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("running OpenVINO files", "export") from error
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # a mapped file could not be moved everywhere
        settings = {"INFERENCE_PRECISION_HINT": "f32"}  # a CPU with bf16 would use it without being asked
        self._model = core.compile_model(str(folder / NAME), "CPU", settings)

    def __call__(self, image: Tiles) -> tuple[npt.NDArray[Any], ...]:
        """The outputs."""
        found = self._model({INPUT: image})
        return tuple(np.array(found[output]) for output in self._model.outputs)
