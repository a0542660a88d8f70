# SPDX-License-Identifier: Apache-2.0
"""The prototypes of known and unknown nuclei: learnt with the auxiliary detector, then refitted to all it was shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.losses.prototype import prototype_distances, prototype_terms
from tral_monai.networks.nuclei.loss_term import LossTerm

if TYPE_CHECKING:
    from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

KNOWN, UNKNOWN = 0, 1
_REFIT_STEPS = 200


class Prototypes(nn.Module):
    """Two prototypes in the space of embedded RoI features (OSAL-ND, Sec. 2.3).

    Args:
        representation: D, length of a RoI feature.
        projection: d, length of the embedding; None takes the RoI feature as it is.
        margin: The paper's delta.

    Attributes:
        points: (2, d) parameter, known and unknown; zero until nuclei of that side have been seen.
        ready: (2,) bool buffer, whether they have.
    """

    def __init__(self, representation: int, *, projection: int | None, margin: float) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity() if projection is None else nn.Linear(representation, projection)
        self.margin = float(margin)
        self.points = nn.Parameter(torch.zeros(2, projection or representation))
        self.ready: torch.Tensor
        self.register_buffer("ready", torch.zeros(2, dtype=torch.bool))

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """(m, D) RoI features to (m, d) float32 embeddings."""
        return self.project(features).float()

    def distances(self, features: torch.Tensor) -> torch.Tensor:
        """(m, 2) Euclidean distances of RoI features (m, D) to the known and the unknown prototype.

        The distance to a prototype that no nucleus has shaped yet is infinite.
        """
        found = prototype_distances(self.embed(features), self.points)
        return found.masked_fill(~self.ready, float("inf"))

    def losses(self, features: torch.Tensor, labels: torch.Tensor, images: torch.Tensor, count: int) -> LossTerm:
        """Eqs. 1 and 2 over foreground RoIs.

        A prototype starts as the mean of the first batch that has nuclei of its side; the terms that need a prototype
        count from then on.

        Args:
            features: (m, D) of all sampled RoIs.
            labels: (m,) int64: 0 background, 1 known, 2 unknown.
            images: (m,) int64, image of each RoI.
            count: Number of images.
        """
        inside = labels > 0
        embeddings, sides = self.embed(features[inside]), labels[inside] - 1
        if self.training:
            self._start(embeddings.detach(), sides)
        terms = prototype_terms(embeddings, sides, self.points, margin=self.margin)
        values = (terms * self.ready).sum(dim=1)
        return LossTerm.of(values, images[inside], torch.bincount(images[inside], minlength=count))

    @torch.no_grad()
    def _start(self, embeddings: torch.Tensor, sides: torch.Tensor) -> None:
        if bool(self.ready.all()):
            return
        member = torch.nn.functional.one_hot(sides, 2).to(embeddings.dtype)
        total = torch.cat([member.T @ embeddings, member.sum(dim=0)[:, None]], dim=1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)  # the same start on every rank
        fresh = (total[:, -1] > 0) & ~self.ready
        self.points[fresh] = total[fresh, :-1] / total[fresh, -1:]
        self.ready |= fresh


Array = torch.Tensor | npt.NDArray[Any]


def refit_prototypes(
    network: OpenSetRCNN,
    fields: Iterable[tuple[Array, Array, Array]],
    *,
    method: Literal["minimise", "mean"] = "minimise",
    batch_size: int = 8,
) -> dict[str, float]:
    """Sets the prototypes from every nucleus of the auxiliary pool, as the paper does at the end of a round.

    The paper sums Eq. 1 over all nuclei and updates the prototypes by it. With the features fixed this is a problem in
    2 x d numbers: ``"minimise"`` starts at the class means and descends its gradient, keeping the best point seen, so
    it never ends above the means in the paper's own objective. ``"mean"`` stops at the class means.

    Args:
        network: A detector of role ``"prototype"``; its prototypes are changed in place.
        fields: (image (3, h, w) or (h, w, 3) uint8, boxes (k, 4) in its pixels, labels (k,)) of every field of view
            that the annotator has answered: 1 known, 2 unknown, -1 ignored.
        method: See above.
        batch_size: Fields that go through the network together.

    Returns:
        ``loss`` (mean of Eq. 1 per nucleus), ``known`` and ``unknown`` (nuclei), ``accuracy`` (share of the nuclei that
        are nearer to their own prototype).

    Raises:
        ConfigError: The network has no prototypes, or no nucleus is known or unknown.
    """
    from tral_monai.networks.nuclei.detect import roi_features  # detect.py imports the network, which imports this file

    bank = network.prototypes
    if bank is None:
        raise ConfigError(f"only a detector of role 'prototype' has prototypes, but its role is {network.role!r}")
    if method not in ("minimise", "mean"):
        raise ConfigError(f"method must be 'minimise' or 'mean', but is {method!r}")
    found: list[npt.NDArray[np.float32]] = []
    labels: list[npt.NDArray[np.int64]] = []
    for batch in _batches(fields, batch_size):
        found.append(roi_features(network, [image for image, _, _ in batch], [boxes for _, boxes, _ in batch]))
        labels += [np.asarray(answers, dtype=np.int64).reshape(-1) for _, _, answers in batch]
    sides = np.concatenate(labels) - 1 if labels else np.zeros(0, dtype=np.int64)
    usable = (sides == KNOWN) | (sides == UNKNOWN)
    if not usable.any():
        raise ConfigError("prototypes need nuclei that are known or unknown, but there are none in these fields")
    device = bank.points.device
    side = torch.from_numpy(sides[usable]).to(device)
    with torch.no_grad():
        embeddings = bank.embed(torch.from_numpy(np.concatenate(found)[usable]).to(device))
    points, ready = fit_points(embeddings, side, margin=bank.margin, steps=_REFIT_STEPS if method == "minimise" else 0)
    with torch.no_grad():
        bank.points.copy_(points)
        bank.ready.copy_(ready)
        nearest = prototype_distances(embeddings, points).masked_fill(~ready, float("inf")).argmin(dim=1)
    return {
        "loss": float(_objective(embeddings, side, points, ready, bank.margin)),
        "known": int((side == KNOWN).sum()),
        "unknown": int((side == UNKNOWN).sum()),
        "accuracy": float((nearest == side).float().mean()),
    }


def fit_points(
    embeddings: torch.Tensor, sides: torch.Tensor, *, margin: float, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prototypes of fixed embeddings: class means, then gradient steps on the mean of Eq. 1, the best point kept.

    Args:
        embeddings: (n, d) float.
        sides: (n,) int64, 0 known, 1 unknown.
        margin: The paper's delta.
        steps: Steps of Adam; 0 gives the class means.

    Returns:
        (2, d) prototypes and (2,) bool, whether there was a nucleus of that side (else its prototype is zero).
    """
    member = torch.nn.functional.one_hot(sides, 2).to(embeddings.dtype)
    count = member.sum(dim=0)
    ready = count > 0
    best = (member.T @ embeddings) / count.clamp(min=1)[:, None]
    if not steps:
        return best, ready
    spread = float((embeddings - best[sides]).norm(dim=1).mean())
    points = best.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([points], lr=0.01 * spread)
    lowest = float("inf")
    with torch.enable_grad():
        for _ in range(steps + 1):
            loss = _objective(embeddings, sides, points, ready, margin)
            value = float(loss.detach())
            if value < lowest:
                lowest, best = value, points.detach().clone()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return best * ready[:, None], ready


def _objective(
    embeddings: torch.Tensor, sides: torch.Tensor, points: torch.Tensor, ready: torch.Tensor, margin: float
) -> torch.Tensor:
    return (prototype_terms(embeddings, sides, points, margin=margin) * ready).sum(dim=1).mean()


def _batches(fields: Iterable[tuple[Array, Array, Array]], size: int) -> Iterator[list[tuple[Array, Array, Array]]]:
    rest = iter(fields)
    while batch := list(itertools.islice(rest, size)):
        yield batch
