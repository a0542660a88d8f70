# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on a CPU, in fp32 or bf16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tral_monai.inference.engines.onnx_file import INPUT, onnx_file
from tral_monai.inference.engines.settings import EngineSettings

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def build(
    module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device
) -> OpenVinoRunner:
    """See :func:`tral_monai.inference.engines.compile_module.compile_module`."""
    del device
    with onnx_file(module, example, settings) as path:
        return OpenVinoRunner(path, precision=_HINTS[settings.precision], threads=settings.threads())


class OpenVinoRunner:
    """A model compiled by OpenVINO for the CPU.

    Args:
        path: the ONNX file; may be removed afterwards.
        precision: OpenVINO's hint, ``f32`` or ``bf16``.
        threads: threads for one batch.
    """

    def __init__(self, path: Path, *, precision: str, threads: int) -> None:
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, all threads on it
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned threads of two programs would meet on the same core while others are idle.
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # a mapped file could not be removed everywhere
        self._model = core.compile_model(core.read_model(path), "CPU", settings)
        self._request = self._model.create_infer_request()

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        found = self._request.infer({INPUT: batch.contiguous().numpy()}, share_inputs=True)
        # The request keeps its buffers for the next batch.
        return tuple(torch.from_numpy(np.array(found[output])) for output in self._model.outputs)
