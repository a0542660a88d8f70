# SPDX-License-Identifier: Apache-2.0
"""Generated fields of dark discs, and a detector that finds exactly these: what must come out is known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from tral_monai.data.nuclei.detections import Detections

TISSUE = (225, 150, 190)
RED, BLUE = (120, 20, 40), (40, 30, 120)  # class 0 and class 1
CLASSES = ("tumour", "lymphocyte")
COLOURS = {"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200)}


def draw_discs(
    size_px: tuple[int, int], discs: Sequence[tuple[int, int, int, int]], background: tuple[int, int, int] = TISSUE
) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8 with discs (x, y, radius, class): each covers x - radius to x + radius, both ends included."""
    width, height = size_px
    pixels = np.full((height, width, 3), background, dtype=np.uint8)
    for x, y, radius, label in discs:
        rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        inside = rows**2 + columns**2 <= radius**2
        pixels[y - radius : y + radius + 1, x - radius : x + radius + 1][inside] = BLUE if label else RED
    return pixels


def disc_boxes(discs: Sequence[tuple[int, int, int, int]]) -> set[tuple[float, ...]]:
    """The boxes (xmin, ymin, xmax, ymax, class) of discs that :func:`draw_discs` drew."""
    return {(x - r, y - r, x + r + 1, y + r + 1, label) for x, y, r, label in discs}


def scattered_discs(
    size_px: tuple[int, int], count: int, *, seed: int, radii: tuple[int, int] = (4, 15)
) -> list[tuple[int, int, int, int]]:
    """Discs that do not touch, anywhere inside of the image."""
    rng = np.random.default_rng(seed)
    discs: list[tuple[int, int, int, int]] = []
    for _ in range(200 * count):
        if len(discs) == count:
            break
        radius = int(rng.integers(*radii, endpoint=True))
        x, y = (int(rng.integers(radius, side - radius)) for side in size_px)
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 3) ** 2 for a, b, r, _ in discs):
            discs.append((x, y, radius, int(rng.integers(2))))
    assert len(discs) == count
    return discs


class _Contract:
    def __init__(self, **values: Any) -> None:
        self._values = values

    def state_dict(self) -> dict[str, Any]:
        return dict(self._values)


class DiscNet(torch.nn.Module):
    """Every dark connected region is a nucleus; more blue than red is class 1. A cut disc gives a cut box.

    Args:
        fov_mpp: as the contract says; so are the next two.
        fov_px: see above.
        max_detections: see above.
        score: of all detections.
        jitter_px: by how much a box lies off, to one side or the other from tile to tile.
    """

    role = "target"

    def __init__(
        self,
        *,
        fov_mpp: float = 0.25,
        fov_px: int = 256,
        max_detections: int = 300,
        score: float = 0.9,
        jitter_px: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(score))
        self.jitter_px = jitter_px
        self.classes = CLASSES
        self.contract = _Contract(
            classes=list(CLASSES),
            class_colors={name: list(colour) for name, colour in COLOURS.items()},
            settings={"fov_mpp": fov_mpp, "fov_px": fov_px, "max_detections": max_detections},
        )
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Sequence[npt.NDArray[np.uint8]]) -> Detections:
        boxes, labels, scores, counts = [], [], [], []
        for image in images:
            assert image.dtype == np.uint8
            self.seen.append(image.shape)
            components, _ = ndimage.label(image[..., 1] < 90)
            slices = ndimage.find_objects(components)
            counts.append(len(slices))
            # Depends on what the tile shows, not on chance: the same tile gives the same boxes.
            shift = self.jitter_px if int(image[::7, ::7].sum()) % 2 else -self.jitter_px
            for part in slices:
                box = [part[1].start, part[0].start, part[1].stop, part[0].stop]
                middle = image[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
                boxes.append([side + shift for side in box])
                labels.append(int(middle[2] > middle[0]))
                scores.append(float(self.scale.detach()))
        return Detections(
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            boxes_px=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            labels=np.array(labels, dtype=np.int64),
            scores=np.array(scores, dtype=np.float32),
            evidence=np.tile(np.array([[6.0, 2.0]], dtype=np.float32), (len(boxes), 1)),
        )


class DiscInferer:
    """Calls the network on the list of tiles."""

    def __call__(self, inputs: Sequence[torch.Tensor], network: torch.nn.Module) -> Detections:
        found: Detections = network([image.permute(1, 2, 0).numpy() for image in inputs])
        return found
