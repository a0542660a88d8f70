# SPDX-License-Identifier: Apache-2.0
"""OSAL-ND: first the images with the most known nuclei, of these the ones the target detector is least certain of."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, candidate_count, nuclei, two_stages
from tral_monai.strategies.nuclei.information import class_information, location_information
from tral_monai.strategies.nuclei.pcss import candidate_counts
from tral_monai.strategies.options import choice, number, whole
from tral_monai.strategies.registry import register

COSTS = ("image", "nucleus")


@register
class OsalNd(NucleusStrategy):
    """Stage 1 (PCSS) keeps the 2N images with the most known nuclei; stage 2 (UTSS) takes the N of highest I = CI * LI.

    Stage 1 counts the nuclei that the auxiliary detector finds closer to the known than to the unknown prototype. CI is
    the mean over the target detector's boxes of K / Q, Q = sum of (evidence + 1); LI the mean of 1 - IoU(box, its
    proposal); both are 0 without a box. `Selection.scores` and `score` are I. Equal counts and equal I fall at random.
    A pool of fewer than 2N images is all candidates.

    While fewer than `min_unknown` nuclei have been ticked unknown, stage 1 ranks by the count of all nuclei that the
    auxiliary detector finds (density), and every reason says so.

    Source: Tang et al., "OSAL-ND: Open-set Active Learning for Nucleus Detection" (MICCAI), section 2, Eqs. 3 to 6; the
    cold start is this project's.

    Args:
        candidates: Images that stage 1 keeps per image asked for (the paper's 2N).
        min_unknown: Nuclei ticked unknown from which the prototypes are trusted; 0 to trust them always.
        per: "image" ranks by I, as the paper does; "nucleus" by I divided by the nuclei found, the boxes that the
            annotator is expected to draw.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "osal_nd"
    auxiliary = "prototype"
    needs = frozenset({"detections", "auxiliary_detections", "labelled_unknown"})
    columns = {  # noqa: RUF012 - read-only by type
        "detections": frozenset({"evidence", "proposals_px"}),
        "auxiliary_detections": frozenset({"prototype_distances"}),
    }
    use_class: ClassVar[bool] = True
    use_location: ClassVar[bool] = True

    def __init__(
        self, *, candidates: float = 2.0, min_unknown: int = 10, per: str = "image", min_score: float = 0.05
    ) -> None:
        super().__init__(min_score=min_score)
        self.candidates = number(self.name, "candidates", candidates, low=1.0)
        self.min_unknown = whole(self.name, "min_unknown", min_unknown, low=0)
        choice(self.name, "per", per, COSTS)
        self.per = per

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        found = self.counted(outputs.found())
        return self._per(outputs, _product(list(self._information(found).values())))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        found = self.counted(outputs.found())
        auxiliary = self.counted(outputs.found("auxiliary_detections"), "auxiliary_detections", once=True)
        first = candidate_counts(auxiliary, int(outputs.labelled_unknown or 0), self.min_unknown)
        cues = self._information(found)
        scores = self._per(outputs, _product(list(cues.values())))
        m = candidate_count(len(scores), n, self.candidates)
        rows, places = two_stages(first.counts, scores, n, m, generator)
        drawn = self.counted(outputs.found(), once=True).counts
        cost = [f", over {nuclei(drawn[row])} found" if self.per == "nucleus" else "" for row in rows]
        return answer(
            outputs,
            rows,
            scores[rows],
            [
                f"{first.note}candidate {place + 1} of {m} with {nuclei(first.counts[row], first.kind)}; "
                + " x ".join(f"{name} uncertainty {values[row]:.3f}" for name, values in cues.items())
                + words
                for row, place, words in zip(rows, places, cost, strict=True)
            ],
        )

    def _information(self, found: Detections) -> dict[str, FloatArray]:
        cues = {}
        if self.use_class:
            cues["class"] = class_information(found)
        if self.use_location:
            cues["location"] = location_information(found)
        return cues

    def _per(self, outputs: PoolOutputs, information: FloatArray) -> FloatArray:
        if self.per == "image":
            return information
        return information / np.maximum(self.counted(outputs.found(), once=True).counts, 1)


def _product(factors: list[FloatArray]) -> FloatArray:
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out
