# SPDX-License-Identifier: Apache-2.0
"""Small networks with random weights, and gates for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.early_exit.low_branches import low_feature_columns, low_scales
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.networks.tri_cnn import TriCNN

CLASSES = ("Stroma", "Muscle", "Damaged")


def small_network(**options: Any) -> TriCNN:
    """A TriCNN that runs in milliseconds."""
    settings = {"backbone": "timm:mobilenetv3_small_050", "hidden": (8,), "seed": 0} | options
    return TriCNN(CLASSES, **settings).eval()


def random_gate(network: TriCNN, **changes: Any) -> ExitGate:
    """A gate for a network, with random weights, through which everything goes."""
    generator = torch.Generator().manual_seed(1)
    width = len(low_feature_columns(network))
    gate = ExitGate(
        classes=network.classes,
        weights_sha256=weights_sha256(network),
        context=network.context,
        magnifications=tuple(network.magnifications[scale] for scale in low_scales(network)),
        weight=torch.randn(len(network.classes), width, generator=generator),
        bias=torch.randn(len(network.classes), generator=generator),
        temperature=2.0,
        threshold=0.0,
        undefined_below=0.6,
        damaged_at_least=0.9,
        calibration={"max_disagreement": 0.01, "splits": [{"split": "val", "tiles": 3, "disagreement": None}]},
    )
    return dataclasses.replace(gate, **changes)
