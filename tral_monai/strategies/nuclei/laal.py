# SPDX-License-Identifier: Apache-2.0
"""Localization-aware active learning: boxes that sit loosely on their proposal, or move when noise is added."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, IntArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, min_per_image, nuclei
from tral_monai.strategies.nuclei.overlaps import best_overlaps, paired_iou
from tral_monai.strategies.options import choice, number, whole
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top

Cue = Literal["tightness", "stability"]


@register
class Laal(NucleusStrategy):
    """Images in which location and class of a box disagree (tightness), or whose boxes move under noise (stability).

    With Pm the highest probability of a known class of box b:

    - "tightness" (LT/C): J = min_b |T_b + Pm_b - 1|, T_b = IoU(box, its proposal); the *lowest* J first, so
      `Selection.scores` and `score` are -J. A low J is a box that is tight but of uncertain class, or the reverse.
    - "stability" (LS+C): U_C - weight * S_I, highest first, which is also the score. U_C = max_b (1 - Pm_b); S_b = mean
      over noise levels of the highest IoU with a box found in the noisy image; S_I = sum Pm_b S_b / sum Pm_b.

    OSAL-ND calls this baseline "samples with the highest tightness and stability". For stability that reverses the sign
    of the original, which prefers *unstable* images; the original is implemented. An image without a box comes last
    (J = 1; U_C = 0 and S_I = 1).

    Source: Kao et al. 2018, "Localization-Aware Active Learning for Object Detection". The original's tightness uses
    the detector's intermediate proposals, which are the RPN's here.

    Args:
        cue: "tightness" or "stability"; the latter needs the detector run over six noisy copies of the pool.
        weight: Of S_I against U_C (the paper's lambda).
        max_boxes: For stability only this many boxes per image, of the highest Pm; none for all. A published port
            takes 30.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "laal"

    def __init__(
        self,
        *,
        cue: Cue = "tightness",
        weight: float = 1.0,
        max_boxes: int | None = None,
        min_score: float = 0.05,
    ) -> None:
        super().__init__(min_score=min_score)
        choice(self.name, "cue", cue, ("tightness", "stability"))
        self.cue: Cue = cue
        self.weight = number(self.name, "weight", weight, low=0.0)
        self.max_boxes = None if max_boxes is None else whole(self.name, "max_boxes", max_boxes, low=1)
        if cue == "tightness":
            self.needs = frozenset({"detections"})
            self.columns = {"detections": frozenset({"probabilities", "proposals_px"})}
        else:
            self.needs = frozenset({"detections", "noise_detections"})
            self.columns = {"detections": frozenset({"probabilities"})}

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        if self.cue == "tightness":
            return -self._disagreement(outputs)
        uncertainty, stability = self._uncertainty_and_stability(outputs)
        return uncertainty - self.weight * stability

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        counts = self.counted(outputs.found()).counts
        if self.cue == "tightness":
            disagreement = self._disagreement(outputs)
            scores = -disagreement
            rows = top(scores, n, generator)
            words = [f"lowest |tightness + class score - 1| {disagreement[row]:.3f}" for row in rows]
        else:
            uncertainty, stability = self._uncertainty_and_stability(outputs)
            scores = uncertainty - self.weight * stability
            rows = top(scores, n, generator)
            words = [f"class uncertainty {uncertainty[row]:.3f}, stability {stability[row]:.3f}" for row in rows]
        return answer(
            outputs,
            rows,
            scores[rows],
            [
                f"{word} over {nuclei(counts[row])}, rank {k} of {len(scores)}"
                for k, (row, word) in enumerate(zip(rows, words, strict=True), start=1)
            ],
        )

    def _disagreement(self, outputs: PoolOutputs) -> FloatArray:
        found = self.counted(outputs.found())
        tightness = paired_iou(found.boxes_px, np.asarray(found.proposals_px))
        return min_per_image(found, np.abs(tightness + class_score(found) - 1.0), empty=1.0)

    def _uncertainty_and_stability(self, outputs: PoolOutputs) -> tuple[FloatArray, FloatArray]:
        found = self.counted(outputs.found())
        if self.max_boxes is not None:
            found = found.keep(place_in_image(found, class_score(found)) < self.max_boxes)
        score = class_score(found)
        noisy = outputs.noise_detections or ()
        stability = np.zeros(len(score))
        for level in noisy:
            stability += best_overlaps(found, self.counted(level, "noise_detections"))[0] / len(noisy)
        weights = found.sum_per_image(score)
        weighted = found.sum_per_image(score * stability)
        return (
            found.max_per_image(1.0 - score),
            np.divide(weighted, weights, out=np.ones(len(found)), where=weights > 0),
        )


def class_score(found: Detections) -> FloatArray:
    """Pm (B,): the highest probability of a known class, background left out."""
    return np.asarray(found.probabilities)[:, 1:].max(axis=1, initial=0.0).astype(np.float64)


def place_in_image(found: Detections, values: FloatArray) -> IntArray:
    """Rank (B,) of each box within its image by `values` (B,), highest first, from 0; earlier boxes first of equals."""
    order = np.lexsort((-values, found.image_of_box))
    places = np.empty(len(values), dtype=np.int64)
    places[order] = np.arange(len(values)) - np.repeat(found.offsets[:-1], found.counts)
    return places
