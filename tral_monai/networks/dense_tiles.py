# SPDX-License-Identifier: Apache-2.0
"""Features of many tiles of one canvas from a backbone without padding: exactly, and what overlaps only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from tral_monai.networks.dense_backbone import DenseBackbone

Normalize = Callable[[torch.Tensor], torch.Tensor]

# Pixels of input that the backbone sees in one call. VGG16's first layers keep 64 floats for each, twice: 400 MB.
MAX_PIXELS = 800_000


def dense_tile_features(
    branch: DenseBackbone,
    canvas: torch.Tensor,
    starts_px: torch.Tensor,
    *,
    tile_px: int,
    normalize: Normalize,
    max_pixels: int = MAX_PIXELS,
) -> torch.Tensor:
    """Computes what the backbone gives for each tile alone, up to rounding.

    Cells of the feature map lie ``stride_px`` apart, so tiles that start at the same place modulo the stride share
    them. They are taken together: the backbone sees the part of the canvas around them once, and each tile's features
    are the mean over its cells. Where this part is larger than the tiles together, they are computed one by one.

    Args:
        branch: A backbone without padding.
        canvas: (1, 3, H, W), uint8 or float on the scale 0 to 255.
        starts_px: (k, 2) integers, top-left (x, y) of each tile in the canvas.
        tile_px: Side of a tile.
        normalize: What the network does to raw RGB, pixel by pixel.
        max_pixels: Input of the backbone in one call, which bounds the memory.

    Returns:
        (k, F) float32 on the canvas's device.

    Raises:
        ValueError: The canvas or the tiles' places are not of this form, or a tile leaves the canvas.
    """
    starts = _checked_starts(canvas, starts_px, tile_px)
    features: torch.Tensor | None = None
    for rows, places in _phases(starts, branch.stride_px):
        x0, y0 = (int(v) for v in places.amin(dim=0))
        width, height = (int(v) + tile_px for v in places.amax(dim=0) - places.amin(dim=0))
        if width * height < len(rows) * tile_px**2:
            crop = canvas[:, :, y0 : y0 + height, x0 : x0 + width]
            part = _from_map(branch, crop, places - places.amin(dim=0), tile_px, normalize, max_pixels)
        else:
            part = _one_by_one(branch, canvas, places, tile_px, normalize, max_pixels)
        if features is None:
            features = part.new_empty(len(starts), part.shape[1])
        features[rows.to(part.device)] = part
    if features is None:
        features = torch.empty(0, branch.num_features, device=canvas.device)
    return features


def _phases(starts: torch.Tensor, stride_px: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of ``starts`` whose tiles have cells in common, with their places."""
    phase = starts % stride_px
    _, group = torch.unique(phase[:, 1] * stride_px + phase[:, 0], return_inverse=True)
    for number in range(int(group.max()) + 1 if len(group) else 0):
        rows = torch.nonzero(group == number).flatten()
        yield rows, starts[rows]


def _from_map(
    branch: DenseBackbone,
    crop: torch.Tensor,
    places: torch.Tensor,
    tile_px: int,
    normalize: Normalize,
    max_pixels: int,
) -> torch.Tensor:
    """Features of tiles at multiples of the stride: means over windows of the crop's feature map."""
    height, width = crop.shape[2:]
    stride, field, lines = branch.stride_px, branch.receptive_field_px, branch.cells(crop.shape[2])
    # Strips of whole lines of cells; neighbouring strips see the same field - stride lines of pixels.
    step = max(1, (max_pixels // width - field) // stride + 1)
    strips = []
    for first in range(0, lines, step):
        last = min(first + step, lines) - 1
        strips.append(branch.feature_map(normalize(crop[:, :, first * stride : min(last * stride + field, height)])))
    feature_map = torch.cat(strips, dim=2)
    means = F.avg_pool2d(feature_map.float(), branch.cells(tile_px), stride=1)[0]
    cells = (places // stride).to(means.device)
    return means[:, cells[:, 1], cells[:, 0]].T


def _one_by_one(
    branch: DenseBackbone,
    canvas: torch.Tensor,
    places: torch.Tensor,
    tile_px: int,
    normalize: Normalize,
    max_pixels: int,
) -> torch.Tensor:
    parts = []
    for chunk in places.split(max(1, max_pixels // tile_px**2)):
        tiles = [canvas[:, :, y : y + tile_px, x : x + tile_px] for x, y in chunk.tolist()]
        parts.append(branch.feature_map(normalize(torch.cat(tiles))).float().mean(dim=(2, 3)))
    return torch.cat(parts)


def _checked_starts(canvas: torch.Tensor, starts_px: torch.Tensor, tile_px: int) -> torch.Tensor:
    if canvas.dim() != 4 or canvas.shape[:2] != (1, 3):
        raise ValueError(f"a canvas must be (1, 3, H, W), but is {list(canvas.shape)}")
    if starts_px.dim() != 2 or starts_px.shape[1] != 2 or starts_px.is_floating_point():
        raise ValueError(f"tiles' places must be (k, 2) integers, but are {starts_px.dtype} {list(starts_px.shape)}")
    starts = starts_px.cpu().long()
    height, width = canvas.shape[2:]
    limit = torch.tensor([width - tile_px, height - tile_px])
    if bool(((starts < 0) | (starts > limit)).any()):
        raise ValueError(
            f"tiles of {tile_px} px must lie inside of the canvas of {width} x {height} px, but start from "
            f"{starts.amin(dim=0).tolist()} to {starts.amax(dim=0).tolist()}"
        )
    return starts
