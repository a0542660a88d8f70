# SPDX-License-Identifier: Apache-2.0
"""Density: the control without which a win cannot be told from "busy fields are good fields"."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, nuclei
from tral_monai.strategies.nuclei.pcss import candidate_counts
from tral_monai.strategies.options import choice, whole
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top

Of = Literal["total", "known_fraction"]


@register
class Density(NucleusStrategy):
    """Images with the most nuclei, or with the highest share of known ones.

    - of="total": the count of nuclei that the target detector finds. No auxiliary detector is trained.
    - of="known_fraction": of the nuclei that the auxiliary detector finds, the share closer to the known than to the
      unknown prototype: known nuclei per box that the annotator is expected to draw. It does not favour busy images; 0
      without a box. While fewer than `min_unknown` nuclei have been ticked unknown, the count of all nuclei that the
      auxiliary detector finds takes its place, and every reason says so.

    `Selection.scores` and `score` are the count or the share. Equal ones fall at random.

    Source: none; this project's control for OSAL-ND, whose first stage counts nuclei.

    Args:
        of: "total" or "known_fraction".
        min_unknown: As for `pcss`; for "known_fraction" only.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "density"

    def __init__(self, *, of: Of = "total", min_unknown: int = 10, min_score: float = 0.05) -> None:
        super().__init__(min_score=min_score)
        choice(self.name, "of", of, ("total", "known_fraction"))
        self.of: Of = of
        self.min_unknown = whole(self.name, "min_unknown", min_unknown, low=0)
        if of == "total":
            self.needs = frozenset({"detections"})
        else:
            self.auxiliary = "prototype"
            self.needs = frozenset({"auxiliary_detections", "labelled_unknown"})
            self.columns = {"auxiliary_detections": frozenset({"prototype_distances"})}

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return self._rated(outputs)[0]

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        scores, words = self._rated(outputs)
        rows = top(scores, n, generator)
        return answer(
            outputs,
            rows,
            scores[rows],
            [f"{words[row]}, rank {k} of {len(scores)}" for k, row in enumerate(rows, start=1)],
        )

    def _rated(self, outputs: PoolOutputs) -> tuple[FloatArray, list[str]]:
        if self.of == "total":
            counts = self.counted(outputs.found(), once=True).counts.astype(np.float64)
            return counts, [f"{nuclei(count)} found" for count in counts]
        found = self.counted(outputs.found("auxiliary_detections"), "auxiliary_detections", once=True)
        first = candidate_counts(found, int(outputs.labelled_unknown or 0), self.min_unknown)
        if first.note:
            return first.counts, [f"{first.note}{nuclei(count)} found" for count in first.counts]
        share = first.counts / np.maximum(found.counts, 1)
        return share, [
            f"{known:g} of {nuclei(total)} known ({part:.0%})"
            for known, total, part in zip(first.counts, found.counts, share, strict=True)
        ]
