# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on a CPU, in fp32."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tral_monai.inference.engines.onnx_file import INPUT, onnx_file
from tral_monai.inference.engines.settings import EngineSettings


def build(
    module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device
) -> OnnxRuntimeRunner:
    """See :func:`tral_monai.inference.engines.compile_module.compile_module`."""
    del device
    with onnx_file(module, example, settings) as path:
        return OnnxRuntimeRunner(path, threads=settings.threads())


class OnnxRuntimeRunner:
    """A session of ONNX Runtime.

    Args:
        path: the ONNX file; may be removed afterwards.
        threads: threads for one batch.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait must not take the CPU away from those that decode the next tiles.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        outputs = self._session.run(None, {INPUT: batch.contiguous().numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)
