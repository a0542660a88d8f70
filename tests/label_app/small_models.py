# SPDX-License-Identifier: Apache-2.0
"""A painted slide and checkpoints that know it: small networks trained for a second until they are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.inference.colour_slides import CLASSES, TILE, slide_pixels, write_slide
from tests.inference.nuclei.conftest import train_detector
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.slides.slide import open_slide
from tral_monai.slides.triplets import TripletReader, triplets_to_tensor_layout

# Stroma around blood, then muscle, on glass: a tile is one character.
PATTERN = (
    "..........",
    "..SSSSMM..",
    "..SBBSMM..",
    "..SBBSMM..",
    "..SSSSMM..",
    "..........",
)
NAMES = ("Stroma", "Muscle", "Blood")
COLOURS = {"Stroma": (250, 10, 20), "Muscle": (10, 250, 20), "Blood": (20, 10, 250)}


def write_painted_slide(path: Path, *, mpp: float | None = 0.25) -> Path:
    return write_slide(path, slide_pixels(PATTERN), mpp=mpp)


def tissue_checkpoint(path: Path, slide_path: Path) -> Path:
    """A TriCNN that gives every tile of the painted slide its class, with a probability of at least 0.9."""
    network = TriCNN(
        list(NAMES), backbone="timm:mobilenetv3_small_050", hidden=(16,), seed=0, frozen=True, class_colors=COLOURS
    )
    cells = [(r, c) for r, row in enumerate(PATTERN) for c, character in enumerate(row) if character != "."]
    labels = torch.tensor([NAMES.index(CLASSES[PATTERN[row][column]]) for row, column in cells])
    centres = np.array([[column * TILE + TILE // 2, row * TILE + TILE // 2] for row, column in cells])
    with open_slide(slide_path, mpp=0.25) as slide:
        tiles = torch.from_numpy(triplets_to_tensor_layout(TripletReader(slide).read(centres)))
    with torch.no_grad():
        features = network.eval().features(tiles)
    optimizer = torch.optim.Adam(network.head.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(features), labels).backward()
        optimizer.step()
    with torch.no_grad():
        sure = torch.softmax(network(tiles), dim=1)[torch.arange(len(labels)), labels]
    assert float(sure.min()) > 0.9
    return save_checkpoint(path, network)


def nucleus_checkpoint(path: Path) -> Path:
    """A detector of dark discs: red ones are ``tumour``, blue ones ``lymphocyte``; 0.25 um per pixel."""
    return save_checkpoint(path, train_detector(0))
