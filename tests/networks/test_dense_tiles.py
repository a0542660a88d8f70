# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.networks.dense_backbone import DenseBackbone, build_dense_backbone
from tral_monai.networks.dense_tiles import dense_tile_features

BACKBONES = ("vgg11", "timm:tf_efficientnet_lite0")


class Counting(DenseBackbone):
    """Mean grey of 4 x 4 windows 4 px apart, and how much it was asked for."""

    def __init__(self) -> None:
        super().__init__(stride_px=4, receptive_field_px=4, num_features=1)
        self.shapes: list[tuple[int, ...]] = []

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 4)


def canvas(height: int, width: int, *, white_px: int = 0) -> torch.Tensor:
    """Grey levels that differ from place to place, with a white border on the left and the top."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 16 + 1, width // 16 + 1, generator=generator) * 200
    picture = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)
    picture[:, :, :white_px] = 255
    picture[..., :white_px] = 255
    return picture.to(torch.uint8)


def grid(step_px: float, columns: int, rows: int, offset: tuple[int, int] = (0, 0)) -> torch.Tensor:
    xs = [round(offset[0] + step_px * i) for i in range(columns)]
    ys = [round(offset[1] + step_px * i) for i in range(rows)]
    return torch.tensor([[x, y] for y in ys for x in xs])


def scaled(rgb: torch.Tensor) -> torch.Tensor:
    return (rgb.float() - 128.0) / 64.0


@torch.no_grad()
def one_tile_after_another(branch: DenseBackbone, picture: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    return torch.cat([branch(scaled(picture[:, :, y : y + 128, x : x + 128])) for x, y in starts.tolist()])


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(
    "starts",
    [
        pytest.param(grid(32, 4, 4), id="10x, exact mpp"),
        pytest.param(grid(8, 6, 5, offset=(3, 6)), id="2.5x, exact mpp, not at a multiple of the stride"),
        pytest.param(grid(32.4, 4, 4), id="10x, inexact mpp"),
        pytest.param(grid(8.1, 5, 5, offset=(1, 0)), id="2.5x, inexact mpp"),
        pytest.param(torch.tensor([[96, 96], [0, 0], [97, 3], [96, 96]]), id="few tiles far apart, one of them twice"),
    ],
)
def test_tiles_of_a_canvas_have_the_features_that_they_have_alone(name: str, starts: torch.Tensor) -> None:
    torch.manual_seed(0)
    branch = build_dense_backbone(name).eval()
    picture = canvas(230, 226, white_px=40)  # tiles at the slide's border hold white
    expected = one_tile_after_another(branch, picture, starts)
    features = dense_tile_features(branch, picture, starts, tile_px=128, normalize=scaled)
    error = (features - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 1e-5
    assert expected.std(dim=0).max() > 100 * (features - expected).abs().max()  # tiles differ by more than rounding


@torch.no_grad()
def test_what_overlaps_is_computed_once() -> None:
    branch = Counting()
    starts = grid(4, 5, 3, offset=(9, 2))
    features = dense_tile_features(branch, canvas(40, 60), starts, tile_px=8, normalize=scaled)
    assert branch.shapes == [(1, 3, 16, 24)]  # 8 px and two steps of 4 px high, 8 px and four steps wide
    assert features.shape == (15, 1)


@torch.no_grad()
def test_each_phase_is_a_part_of_its_own_and_rows_keep_their_order() -> None:
    branch, picture = Counting(), canvas(40, 60)
    starts = grid(4, 4, 4)[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    starts[::2, 0] += 1
    features = dense_tile_features(branch, picture, starts, tile_px=8, normalize=scaled)
    assert len(branch.shapes) == 2
    expected = torch.stack([scaled(picture[0, :, y : y + 8, x : x + 8]).mean() for x, y in starts.tolist()])
    torch.testing.assert_close(features[:, 0], expected)


@torch.no_grad()
def test_tiles_far_apart_are_computed_one_by_one() -> None:
    branch = Counting()
    starts = torch.tensor([[0, 0], [52, 32], [0, 32]])
    dense_tile_features(branch, canvas(40, 60), starts, tile_px=8, normalize=scaled)
    assert branch.shapes == [(3, 3, 8, 8)]


@torch.no_grad()
@pytest.mark.parametrize("max_pixels", [1, 300, 700])
def test_large_canvases_go_through_in_strips(max_pixels: int) -> None:
    torch.manual_seed(0)
    counting, picture = Counting(), canvas(200, 40)
    starts = grid(4, 8, 40)
    whole = dense_tile_features(Counting(), picture, starts, tile_px=8, normalize=scaled)
    strips = dense_tile_features(counting, picture, starts, tile_px=8, normalize=scaled, max_pixels=max_pixels)
    assert torch.equal(strips, whole)
    assert len(counting.shapes) > 5
    assert all(s[2] * s[3] <= max(max_pixels, 4 * 36) for s in counting.shapes)


def test_no_tiles_give_no_rows() -> None:
    none = torch.zeros(0, 2, dtype=torch.int64)
    assert dense_tile_features(Counting(), canvas(9, 9), none, tile_px=8, normalize=scaled).shape == (0, 1)


@pytest.mark.parametrize(
    ("picture", "starts", "message"),
    [
        (canvas(9, 9)[0], grid(1, 1, 1), r"must be \(1, 3, H, W\), but is \[3, 9, 9\]"),
        (canvas(9, 9), torch.zeros(2, 2), r"\(k, 2\) integers, but are torch\.float32 \[2, 2\]"),
        (canvas(9, 9), torch.tensor([[2, 0]]), r"inside of the canvas of 9 x 9 px, but start from \[2, 0\]"),
        (canvas(9, 9), torch.tensor([[0, -1]]), r"inside of the canvas .* start from \[0, -1\]"),
    ],
)
def test_other_inputs_are_refused(picture: torch.Tensor, starts: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_tile_features(Counting(), picture, starts, tile_px=8, normalize=scaled)
