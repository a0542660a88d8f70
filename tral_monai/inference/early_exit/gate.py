# SPDX-License-Identifier: Apache-2.0
"""The exit gate: who may be decided from the low magnifications, as a file beside the checkpoint it belongs to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tral_monai import __version__
from tral_monai.atomic_file import atomic_path
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.fingerprints import weights_sha256

FORMAT = "tral_monai.ExitGate"
FORMAT_VERSION = 1
GATE_FILE = "exit_gate.pt"
HOW_TO_MAKE = "make one with the bundle's early_exit.yaml"


@dataclass(frozen=True, eq=False)
class ExitGate:
    """An exit head with its temperature and threshold, for one network and one set of map rules.

    Attributes:
        classes: names of the outputs, the network's.
        weights_sha256: of the network that it belongs to (:func:`tral_monai.inference.fingerprints.weights_sha256`).
        context: the network's ``context``, ``tile`` or ``dense``.
        magnifications: of the branches that it reads, in the network's order.
        weight: (C, F) float32, F the features of these branches side by side.
        bias: (C,) float32.
        temperature: what logits are divided by.
        threshold: a tile exits where its largest probability is at least this; None lets no tile exit.
        undefined_below: rule of the map that agreement was measured under.
        damaged_at_least: rule of the map that agreement was measured under.
        calibration: what it was calibrated with and what it does on each split, as plain data.
    """

    classes: tuple[str, ...]
    weights_sha256: str
    context: str
    magnifications: tuple[float, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    temperature: float
    threshold: float | None
    undefined_below: float
    damaged_at_least: float
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def log_probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Early decision: log-probabilities (n, C) float32 for low-magnification features (n, F), on their device."""
        weight, bias = self.weight.to(features.device), self.bias.to(features.device)
        return nn.functional.linear(features.float(), weight, bias).div(self.temperature).log_softmax(dim=1)

    def exits(self, log_probabilities: torch.Tensor) -> torch.Tensor:
        """Which tiles are decided early: (n,) bool, on the same device."""
        if self.threshold is None:
            return torch.zeros(len(log_probabilities), dtype=torch.bool, device=log_probabilities.device)
        return log_probabilities.max(dim=1).values.exp() >= self.threshold

    def check(self, network: nn.Module) -> None:
        """Check that this gate was made for a network.

        Args:
            network: the full model.

        Raises:
            CheckpointError: the gate is of other weights, or of another context.
        """
        found = weights_sha256(network)
        if found != self.weights_sha256:
            raise CheckpointError(
                f"the exit gate was made for the weights {self.weights_sha256[:12]}, but the network has {found[:12]}; "
                f"{HOW_TO_MAKE} for this checkpoint, or leave early_exit out"
            )
        context = str(getattr(network, "context", "tile"))
        if context != self.context:
            raise CheckpointError(
                f"the exit gate was made for context '{self.context}', but the network has '{context}'; {HOW_TO_MAKE}"
            )

    def check_rules(self, *, undefined_below: float, damaged_at_least: float) -> None:
        """Check that the gate was calibrated for the rules that a map is made with.

        Args:
            undefined_below: the map's rule.
            damaged_at_least: the map's rule; it matters only where there is a class ``Damaged``.

        Raises:
            ConfigError: its disagreement was measured under other rules.
        """
        for name, ours, theirs in (
            ("undefined_below", self.undefined_below, undefined_below),
            ("damaged_at_least", self.damaged_at_least, damaged_at_least),
        ):
            if theirs != ours and (name != "damaged_at_least" or "Damaged" in self.classes):
                raise ConfigError(
                    f"the exit gate promises what the map shows with {name} {ours}, but the map is made with {theirs}; "
                    f"{HOW_TO_MAKE} and --{name} {theirs}, or leave early_exit out"
                )

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that decides which tiles exit and what they become."""
        digest = hashlib.sha256()
        for tensor in (self.weight, self.bias):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        decides = (self.weights_sha256, self.context, self.magnifications, self.temperature, self.threshold)
        digest.update(repr(decides).encode())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the gate, so that the file is either the old one or the whole new one.

        Raises:
            OutputError: the file cannot be written.
        """
        target = Path(path)
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "classes": list(self.classes),
            "weights_sha256": self.weights_sha256,
            "context": self.context,
            "magnifications": list(self.magnifications),
            "weight": self.weight.detach().cpu().float().contiguous(),
            "bias": self.bias.detach().cpu().float().contiguous(),
            "temperature": float(self.temperature),
            "threshold": self.threshold,
            "undefined_below": float(self.undefined_below),
            "damaged_at_least": float(self.damaged_at_least),
            "calibration": dict(self.calibration),
        }
        with atomic_path(target) as temporary:
            torch.save(content, temporary)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ExitGate:
        """Read a gate.

        Raises:
            CheckpointError: there is no such file, or it is not a gate of this version.
        """
        file = Path(path)
        if not file.is_file():
            raise CheckpointError(f"there is no exit gate '{file}'; {HOW_TO_MAKE}")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch, pickle and zipfile raise for a file that is damaged or another
            raise CheckpointError(f"{file.name} cannot be read as an exit gate ({error}); {HOW_TO_MAKE}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{file.name} is not an exit gate; {HOW_TO_MAKE}")
        if content.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{file.name} has format version {content.get('format_version')!r}, this package ({__version__}) reads "
                f"{FORMAT_VERSION}; {HOW_TO_MAKE}"
            )
        names = cls.__dataclass_fields__
        missing = sorted(set(names) - set(content))
        if missing:
            raise CheckpointError(f"{file.name} lacks {', '.join(missing)}; {HOW_TO_MAKE}")
        values = {name: content[name] for name in names}
        values["classes"] = tuple(values["classes"])
        values["magnifications"] = tuple(values["magnifications"])
        return cls(**values)
