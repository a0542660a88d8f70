# SPDX-License-Identifier: Apache-2.0
"""ONNX by tracing, for detectors: torch's newer exporter stops at numbers of boxes that depend on the pixels."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.export.deployable import INPUT, Deployable, example_of

_OPSET = 18


def traced_onnx(deployable: Deployable) -> Any:
    """Trace a module that takes one tile and gives tables of as many rows as it finds.

    Args:
        deployable: the network.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        ConfigError: the exporter does not take the network.
    """
    import onnx

    rows = {name: {0: "nuclei"} for name in deployable.output_names}
    with tempfile.TemporaryDirectory(prefix="tral_monai_") as folder, warnings.catch_warnings(), torch.no_grad():
        written = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # that this exporter is old, and of what it takes for constant
        try:
            torch.onnx.export(
                deployable.module,
                (example_of(deployable),),
                written,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=list(deployable.output_names),
                dynamic_axes=rows,
            )
        except Exception as error:  # the exporter has errors of many kinds, all of which mean the same here
            first = (str(error).strip() or "-").splitlines()[0]
            raise ConfigError(
                f"this detector cannot be exported to ONNX ({type(error).__name__}: {first}); leave out onnx and "
                "openvino"
            ) from error
        return onnx.load(written)
