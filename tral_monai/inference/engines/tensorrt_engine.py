# SPDX-License-Identifier: Apache-2.0
"""TensorRT on an NVIDIA GPU, through MONAI's ``trt_compile``."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

from tral_monai.atomic_file import prepare_folder
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.onnx_file import cache_key, check_exportable
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.engines.torch_engine import as_tuple


def build(
    module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device
) -> TensorRtRunner:
    """See :func:`tral_monai.inference.engines.compile_module.compile_module`."""
    check_exportable(module, settings.name)
    if settings.cache_dir is not None:
        folder = prepare_folder(settings.cache_dir)
        gpu = torch.cuda.get_device_name(device).replace(" ", "-")
        key = cache_key(module, example, packages=("tensorrt", "polygraphy"))
        plan = folder / f"{key}-{settings.precision}-{len(example)}-{gpu}"
        finished = Path(f"{plan}.plan")
        if finished.is_file():
            return TensorRtRunner(module, example, precision=settings.precision, plan=plan)
        # MONAI writes the file in place; two processes at once would mix their bytes.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as temporary:
            runner = TensorRtRunner(module, example, precision=settings.precision, plan=Path(temporary) / "module")
            (Path(temporary) / "module.plan").replace(finished)
        return runner
    # The plan is read right after it was built, in the first call, and not needed afterwards.
    with tempfile.TemporaryDirectory(prefix="tral_monai_") as temporary:
        return TensorRtRunner(module, example, precision=settings.precision, plan=Path(temporary) / "module")


class TensorRtRunner:
    """A TensorRT plan; building it takes minutes.

    Batches larger than the example are run in parts. Pixels go in as float32 on the scale that they came in, because
    TensorRT's own uint8 inputs are limited.

    Args:
        module: the module.
        example: a batch of the largest size.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        plan: where the plan is kept, without its suffix.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor, *, precision: str, plan: Path) -> None:
        from monai.networks.trt_compiler import trt_compile

        self._largest = len(example)
        arguments = {
            "precision": precision,
            "dynamic_batchsize": [1, self._largest, self._largest],
            "input_names": ["batch"],
        }
        self._module = trt_compile(_Positional(copy.deepcopy(module)), str(plan), args=arguments)
        if not hasattr(self._module, "_trt_compiler"):  # it only logs that, and would go on with torch
            raise ConfigError("engine tensorrt: MONAI's trt_compile found no usable TensorRT; use engine compile")
        self(example)  # builds the plan and reads it

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        # MONAI hands out the same buffers in every call.
        parts = [
            [output.clone() for output in as_tuple(self._module(part.float().contiguous()))]
            for part in batch.split(self._largest)
        ]
        return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


class _Positional(nn.Module):
    """Names the input ``batch``, which the plan's input is called by."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: torch.Tensor) -> object:
        return self.module(batch)
