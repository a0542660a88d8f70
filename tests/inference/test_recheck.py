# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch

from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.recheck import RecheckedModel
from tral_monai.inference.tile_model import PerTileModel, TileOutputs

# Probabilities of the fast model for three tiles; the margins are 0.8, 0.1 and 0.3.
FAST = torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.65, 0.35]])


class Exact(torch.nn.Module):
    """Says of each tile that its class is the second, by e to the grey level of its first pixel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        level = image[:, 0, 0, 0].float()
        return torch.stack((torch.zeros_like(level), level), dim=1)


class Fast:
    network = torch.nn.Identity()

    def __init__(self, probabilities: torch.Tensor = FAST) -> None:
        self.probabilities = probabilities

    def settings(self) -> dict[str, Any]:
        return {"engine": "torch", "precision": "bf16"}

    def runtime(self) -> dict[str, Any]:
        return {"batch_size": 3}

    def reset(self) -> None:
        """Nothing is made of weights."""

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: Any) -> TileOutputs:
        done(len(block))
        features = torch.zeros(len(block), 2) if want_features else None
        return TileOutputs(self.probabilities.log(), features, {"other": 1})


def block() -> DeviceBlock:
    canvas = torch.zeros(2, 6, 3, dtype=torch.uint8)
    canvas[:, 0:2], canvas[:, 2:4], canvas[:, 4:6] = 1, 2, 3
    return DeviceBlock((canvas,), torch.tensor([[[0, 0], [2, 0], [4, 0]]]), 2)


@pytest.mark.parametrize(
    ("margin", "again"),
    [(0.05, []), (0.2, [1]), (0.29, [1]), (0.5, [1, 2]), (1.0, [0, 1, 2])],
)
def test_close_tiles_and_no_others_are_asked_about_again(margin: float, again: list[int]) -> None:
    done: list[int] = []
    outputs = RecheckedModel(Fast(), PerTileModel(Exact()), margin)(block(), done=done.append)
    expected = FAST.log()
    for row in again:
        expected[row] = torch.tensor([0.0, row + 1.0])
    assert torch.equal(outputs.logits, expected)
    assert outputs.computed == {"other": 1, "rechecked": len(again)}
    assert done == [3]


def shown_block(tiles: int) -> DeviceBlock:
    canvas = torch.zeros(2, 2 * tiles, 3, dtype=torch.uint8)
    return DeviceBlock((canvas,), torch.tensor([[[2 * n, 0] for n in range(tiles)]]), 2)


def rechecked(probabilities: list[list[float]], **rules: Any) -> list[int]:
    """Rows that are asked about again: they get logits of 0."""
    model = RecheckedModel(Fast(torch.tensor(probabilities)), PerTileModel(Zero()), 0.2, **rules)
    outputs = model(shown_block(len(probabilities)), done=lambda tiles: None)
    return [row for row, logits in enumerate(outputs.logits.tolist()) if not any(logits)]


class Zero(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(image), 3)


def test_tiles_within_half_the_margin_of_undefined_are_asked_about_again() -> None:
    # Undefined below 0.6: from 0.5 to 0.7 a change by less than 0.1 could cross it. The second class is far in all.
    tiles = [[0.49, 0.26, 0.25], [0.51, 0.25, 0.24], [0.60, 0.2, 0.2], [0.69, 0.16, 0.15], [0.71, 0.15, 0.14]]
    assert rechecked(tiles, undefined_below=0.6) == [1, 2, 3]
    assert rechecked(tiles) == []


def test_tiles_within_half_the_margin_of_damaged_are_asked_about_again() -> None:
    # Damaged, the last, needs 0.9: from 0.8 on it could be shown or not. Another class at 0.9 is shown anyway.
    tiles = [[0.21, 0.0, 0.79], [0.19, 0.0, 0.81], [0.05, 0.0, 0.95], [0.9, 0.1, 0.0]]
    rules = {"undefined_below": 0.6, "damaged_at_least": 0.9}
    assert rechecked(tiles, damaged_output=2, **rules) == [1, 2]
    assert rechecked(tiles, **rules) == []


def test_the_second_class_is_shown_in_place_of_damaged_where_it_is_clear() -> None:
    # Damaged at 0.75 is not shown, but the second class: 0.15 and 0.1 are close, 0.24 and 0.01 are not.
    tiles = [[0.15, 0.1, 0.75], [0.24, 0.01, 0.75]]
    assert rechecked(tiles, undefined_below=0.6, damaged_at_least=0.9, damaged_output=2) == [0]


def test_what_is_not_finite_is_asked_about_again() -> None:
    broken = FAST.clone()
    broken[0] = float("nan")
    outputs = RecheckedModel(Fast(broken), PerTileModel(Exact()), 0.05)(block(), done=lambda tiles: None)
    assert outputs.logits[0].tolist() == [0.0, 1.0]


def test_what_was_made_of_old_weights_is_dropped_of_both() -> None:
    dropped = []

    class Resettable(PerTileModel):
        def reset(self) -> None:
            dropped.append(self.batch_size)

    RecheckedModel(Resettable(Exact(), batch_size=1), Resettable(Exact(), batch_size=2), 0.2).reset()
    assert dropped == [1, 2]


def test_the_margin_decides_what_is_finished() -> None:
    model = RecheckedModel(Fast(), PerTileModel(Exact()), 0.2)
    assert model.settings() == {"engine": "torch", "precision": "bf16", "recheck_margin": 0.2}
    assert model.runtime() == {"batch_size": 3}
