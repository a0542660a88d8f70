# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a network, in which precision, and how far it may be from the reference."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tral_monai.errors import ConfigError

EngineName = Literal["torch", "compile", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class EngineSettings:
    """An engine and its precision; torch in fp32, the default, is the reference that every other one is compared with.

    Args:
        name: ``torch``; ``compile`` (torch.compile); ``onnxruntime`` and ``openvino`` on a CPU; ``tensorrt`` on an
            NVIDIA GPU.
        precision: ``fp32``, ``bf16`` (a CPU with AMX or AVX512-BF16, or a GPU) or ``fp16`` (GPUs only).
        min_agreement: share of the sampled tiles that must get the reference's value in the map, 0 to 1; below it a run
            stops. None: 0.99, or what an exit gate was calibrated for.
        agreement_tiles: number of tiles that are sampled for that.
        recheck_margin: in half precision, tiles whose two largest probabilities differ by less than this are classified
            again in full precision, 0 to 1; 0 for none. Not for detectors.
        num_threads: threads of a CPU engine. None: as many as torch uses, which OMP_NUM_THREADS sets.
        cache_dir: folder for what an engine builds (ONNX files, TensorRT plans), named by a hash of weights and
            settings, so that the next start is quick. None: a temporary folder.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """

    name: EngineName = "torch"
    precision: Precision = "fp32"
    min_agreement: float | None = None
    agreement_tiles: int = 128
    recheck_margin: float = 0.2
    num_threads: int | None = None
    cache_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, but is {self.name!r}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, but is {self.precision!r}")
        for name in ("min_agreement", "recheck_margin"):
            share = getattr(self, name)
            if share is None and name == "min_agreement":
                continue
            if share is None or isinstance(share, str) or not 0.0 <= share <= 1.0:
                raise ConfigError(f"{name} must lie between 0 and 1, but is {share!r}")
        for name in ("agreement_tiles", "num_threads"):
            value = getattr(self, name)
            if value is None and name == "num_threads":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, but is {value!r}")

    @property
    def is_reference(self) -> bool:
        """Whether this is the engine that the others are compared with."""
        return self.name == "torch" and self.precision == "fp32"

    @property
    def title(self) -> str:
        """Engine and precision in words, such as ``openvino bf16``."""
        return f"{self.name} {self.precision}"

    def threads(self) -> int:
        """Threads of a CPU engine."""
        import torch

        return torch.get_num_threads() if self.num_threads is None else self.num_threads

    def settings(self) -> dict[str, Any]:
        """What decides results: a finished slide must agree with it to be kept."""
        return {"engine": self.name, "precision": self.precision}

    def describe(self) -> dict[str, Any]:
        """All settings as plain data, for a record of provenance."""
        return {
            **self.settings(),
            "min_agreement": self.min_agreement,
            "agreement_tiles": self.agreement_tiles,
            "num_threads": self.num_threads,
        }
