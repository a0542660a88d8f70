# SPDX-License-Identifier: Apache-2.0
"""``model.onnx``: the network for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from tral_monai.errors import MissingExtraError
from tral_monai.inference.engines.onnx_file import INPUT as ENGINE_INPUT
from tral_monai.inference.engines.onnx_file import onnx_file
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.export.deployable import INPUT, Deployable, Tiles, example_of

NAME = "model.onnx"


def write_onnx(deployable: Deployable, folder: Path) -> None:
    """Write ``model.onnx``, with input and outputs by their names and the metadata inside.

    Args:
        deployable: the network.
        folder: where to.

    Raises:
        MissingExtraError: the packages for it are not installed.
        ConfigError: the exporter does not take the network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise MissingExtraError("exporting to ONNX", "export") from error
    if deployable.any_batch:
        with onnx_file(deployable.module, example_of(deployable), EngineSettings(name="onnxruntime")) as path:
            model = onnx.load(path)
        _rename(model.graph, {ENGINE_INPUT: INPUT})
        _rename(model.graph, dict(zip((o.name for o in model.graph.output), deployable.output_names, strict=True)))
    else:
        from tral_monai.inference.export.traced_onnx import traced_onnx

        model = traced_onnx(deployable)
    onnx.helper.set_model_props(model, deployable.metadata())
    model.doc_string = ""  # the exporter writes paths of this machine there
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / NAME))


class OnnxFile:
    """Runs ``model.onnx`` with ONNX Runtime on the CPU.

    Args:
        folder: where the file is.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("running ONNX files", "export") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(folder / NAME), options, providers=["CPUExecutionProvider"])

    def __call__(self, image: Tiles) -> tuple[npt.NDArray[Any], ...]:
        """The outputs."""
        return tuple(self._session.run(None, {INPUT: image}))


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give values of a graph other names, wherever they stand."""
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    spare = {new: f"{new}_inner" for new in names.values() if new in taken and new not in names}
    mapping = {**names, **spare}
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = mapping.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = mapping.get(name, name)
