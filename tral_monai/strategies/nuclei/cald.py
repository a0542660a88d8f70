# SPDX-License-Identifier: Apache-2.0
"""CALD: images whose boxes change between augmented views, then those of classes that are labelled little."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import StrategyError
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, candidate_count, min_per_image, two_stages
from tral_monai.strategies.nuclei.laal import class_score, place_in_image
from tral_monai.strategies.nuclei.overlaps import best_overlaps
from tral_monai.strategies.options import choice, number
from tral_monai.strategies.registry import register

Quirks = Literal["released"]


@register
class Cald(NucleusStrategy):
    """Stage 1 keeps the images of the lowest M; stage 2 takes those whose classes differ most from the labelled ones.

    Each box k of the image is matched with the box k' of view A that overlaps it most (boxes of the view mapped back):
    m_k = IoU + (Pm + Pm') / 2 * (1 - JS(p, p')), with p over background and known classes, Pm the highest probability
    of a known class, JS in nats; M = mean over views of min_k |m_k - beta|. Stage 1 keeps `candidates` images per image
    asked for. Stage 2 ranks them by JS(D_L, D_x): D_L = softmax of the mean count of each class per labelled image,
    D_x = softmax of the highest score of each class, averaged over the image and its views.

    `Selection.scores` is JS(D_L, D_x) (nats), by which the candidates are ranked; `score` is -M, by which they are
    found. An image without a box has M = beta, the highest that a box can bring, and so comes late; a view without a
    box matches with m_k = 0. D_L does not change while images are picked.

    Source: Yu et al. 2022, "Consistency-based Active Learning for Object Detection".

    Args:
        beta: m of the most informative boxes (2 is a box found again exactly, with certainty).
        candidates: Images that stage 1 keeps per image asked for.
        quirks: "released" does as the authors' program: an image without a box has M = 0 and is chosen before all
            others, a view without a box counts 0, min_k never exceeds 1, and of more than 40 boxes 50 are taken evenly
            by rank of score.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "cald"
    needs = frozenset({"detections", "view_detections", "labelled_class_means"})
    columns = {  # noqa: RUF012 - read-only by type
        "detections": frozenset({"probabilities"}),
        "view_detections": frozenset({"probabilities"}),
    }

    def __init__(
        self,
        *,
        beta: float = 1.3,
        candidates: float = 1.2,
        quirks: Quirks | None = None,
        min_score: float = 0.05,
    ) -> None:
        super().__init__(min_score=min_score)
        choice(self.name, "quirks", quirks, (None, "released"))
        self.beta = number(self.name, "beta", beta, low=0.0, high=2.0)
        self.candidates = number(self.name, "candidates", candidates, low=1.0)
        self.released = quirks == "released"

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return -self._consistency(*self._passes(outputs))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        found, views = self._passes(outputs)
        consistency = self._consistency(found, views)
        difference = class_difference(outputs.array("labelled_class_means"), (found, *views))
        second = np.where(found.counts == 0, np.inf, difference) if self.released else difference
        m = candidate_count(len(consistency), n, self.candidates)
        rows, _ = two_stages(-consistency, second, n, m, generator)
        return answer(
            outputs,
            rows,
            difference[rows],
            [
                f"one of {m} candidates, {consistency[row]:.3f} from beta over {len(views)} views; "
                f"divergence from the labelled classes {difference[row]:.4f}, rank {k} of {m}"
                for k, row in enumerate(rows, start=1)
            ],
        )

    def _passes(self, outputs: PoolOutputs) -> tuple[Detections, tuple[Detections, ...]]:
        found = self.counted(outputs.found())
        if self.released:
            found = found.keep(_evenly_by_rank(found))
        views = outputs.view_detections or ()
        return found, tuple(self.counted(view, "view_detections") for view in views)

    def _consistency(self, found: Detections, views: tuple[Detections, ...]) -> FloatArray:
        p = np.asarray(found.probabilities, dtype=np.float64)
        own = class_score(found)
        own_entropy = _entropy(p)
        total = np.zeros(len(found))
        for view in views:
            iou, match = best_overlaps(found, view)
            some = match >= 0
            q = np.asarray(view.probabilities, dtype=np.float64)[match[some]]
            js = np.maximum(_entropy((p[some] + q) / 2) - (own_entropy[some] + _entropy(q)) / 2, 0.0)
            m = np.zeros(len(iou))
            m[some] = iou[some] + (own[some] + class_score(view)[match[some]]) / 2 * (1.0 - js)
            distance = np.abs(m - self.beta)
            if self.released:
                distance = np.where(some, np.minimum(distance, 1.0), 0.0)
            total += min_per_image(found, distance, empty=0.0 if self.released else self.beta)
        return total / len(views)


def class_difference(labelled_class_means: FloatArray, passes: tuple[Detections, ...]) -> FloatArray:
    """JS(D_L, D_x) of each image (n,), in nats, with D_x averaged over several passes of the detector over it.

    Raises:
        StrategyError: A label has no class in `labelled_class_means`.
    """
    k = len(labelled_class_means)
    highest = np.zeros((len(passes[0]), k))
    for found in passes:
        if len(found.labels) and (found.labels.min() < 0 or found.labels.max() >= k):
            raise StrategyError(
                f"cald: labels of boxes run from {found.labels.min()} to {found.labels.max()}, but "
                f"'labelled_class_means' has {k} classes; give one mean for each class of the detector."
            )
        of_pass = np.zeros_like(highest)
        np.maximum.at(of_pass, (found.image_of_box, found.labels), np.asarray(found.scores, dtype=np.float64))
        highest += of_pass / len(passes)
    labelled = _softmax(labelled_class_means[None])
    pool = _softmax(highest)
    return np.maximum(_entropy((labelled + pool) / 2) - (_entropy(labelled) + _entropy(pool)) / 2, 0.0)


def _evenly_by_rank(found: Detections) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of images with more than 40 boxes the 50 boxes spaced evenly by rank of score (all where there are fewer)."""
    counts = np.repeat(found.counts, found.counts)
    place = place_in_image(found, np.asarray(found.scores, dtype=np.float64))
    keep = np.ones(len(place), dtype=np.bool_)
    for count in np.unique(found.counts[found.counts > 50]):
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[np.rint(np.linspace(0, count - 1, 50)).astype(np.int64)] = True
        of_count = counts == count
        keep[of_count] = chosen[place[of_count]]
    return keep


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _entropy(p: FloatArray) -> FloatArray:
    log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(-np.einsum("ij,ij->i", p, log_p))
