# SPDX-License-Identifier: Apache-2.0
"""Networks to measure with: a checkpoint that is given, or random convolutions under a head that learnt something.

The speed of a network does not depend on its weights, but agreement between engines does: of an untrained one every
tile has the same class. The head therefore learns classes that the tiles have: their groups by colour at every
magnification, which lie side by side, so that tiles near a border are as frequent as they get.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark_parts.common import Options, say
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.slides.slide import open_slide
from tral_monai.slides.triplets import TripletReader

_CLASSES = ("Carcinoma", "Stroma", "Muscle", "Blood", "Damaged")
_TRAINED_ON = 96
_STEPS = 60


def tissue_checkpoint(options: Options, slide: Path, *, context: str = "tile") -> Path:
    """The checkpoint given, or one made here and kept in the work folder.

    Args:
        options: the command line.
        slide: the tiles to learn from.
        context: of the network's branches; the weights are the same ones.
    """
    if options.checkpoint is not None and context == "tile":
        return options.checkpoint
    path = options.work / f"{options.backbone}_{slide.stem}_{context}.pt"
    if not path.exists():
        extra: dict[str, Any] = {} if context == "tile" else {"context": context}
        network = TriCNN(
            _CLASSES, backbone=options.backbone, normalization="imagenet", seed=0, feature_norm="batch", **extra
        )
        _start_convolutions(network)
        _train_head(network, _tiles(slide, options))
        save_checkpoint(path, network)
    return path


def tissue_network(options: Options, slide: Path, *, context: str = "tile") -> TriCNN:
    """The network of :func:`tissue_checkpoint`, in evaluation mode on the CPU."""
    network: TriCNN = load_checkpoint(tissue_checkpoint(options, slide, context=context), expect=TriCNN)
    return network.eval()


def _start_convolutions(network: TriCNN) -> None:
    """Weights that keep the variance of what goes through them (He), without biases."""
    generator = torch.Generator().manual_seed(0)
    for module in network.branches.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


def _tiles(slide: Path, options: Options) -> NDArray[np.uint8]:
    """(n, 3, 128, 128, 3) triplets of tissue, spread over the slide."""
    from benchmark_parts.centres import tissue_centres

    with open_slide(slide, "auto", options.mpp if slide == options.slide else None) as opened:
        centres = tissue_centres(opened)
        chosen = np.sort(np.random.default_rng(0).permutation(len(centres))[:_TRAINED_ON])
        tiles: NDArray[np.uint8] = TripletReader(opened).read(centres[chosen])
    return tiles


def _train_head(network: TriCNN, tiles: NDArray[np.uint8]) -> None:
    say(f"  training a head on {len(tiles)} tiles")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image = torch.from_numpy(tiles).permute(0, 1, 4, 2, 3).flatten(1, 2)
    network.to(device).eval()
    with torch.no_grad():
        features = torch.cat([network.features(part.to(device)) for part in image.split(32)])
    labels = torch.from_numpy(_groups(tiles, len(network.classes))).to(device)
    optimizer = torch.optim.Adam(network.head.parameters(), lr=1e-4)
    network.head.train()
    network.dropout = 0.0  # a few tiles, learnt by heart
    for _ in range(_STEPS):
        loss = torch.nn.functional.cross_entropy(network.head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        right = (network.head(features).argmax(dim=1) == labels).float().mean()
    network.cpu()
    say(f"  it has {float(right):.1%} of its own tiles right")


def _groups(tiles: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Equal groups by the first principal component of the tiles' mean colours."""
    colours = tiles.reshape(len(tiles), -1, 128 * 128, 3).mean(axis=2).reshape(len(tiles), -1)
    colours -= colours.mean(axis=0)
    first = colours @ np.linalg.svd(colours, full_matrices=False)[2][0]
    ranks: NDArray[np.int64] = first.argsort(kind="stable").argsort(kind="stable")
    return ranks * count // len(tiles)
