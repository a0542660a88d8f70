# SPDX-License-Identifier: Apache-2.0
"""PCSS: the first stage of OSAL-ND alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, nuclei
from tral_monai.strategies.nuclei.information import known_counts
from tral_monai.strategies.options import whole
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top


@dataclass(frozen=True)
class CandidateCounts:
    """What ranks images in the first stage.

    Args:
        counts: (n,) nuclei near the known prototype, or all nuclei at a cold start.
        kind: "known", or "" for all.
        note: Empty, or why all nuclei are counted; starts a reason.
    """

    counts: FloatArray
    kind: str
    note: str


def candidate_counts(found: Detections, labelled_unknown: int, min_unknown: int) -> CandidateCounts:
    """Known nuclei of each image; all nuclei while too few unknown ones are labelled to place their prototype."""
    if labelled_unknown >= min_unknown:
        return CandidateCounts(known_counts(found), "known", "")
    note = (
        f"cold start, density instead of known nuclei: {nuclei(labelled_unknown, 'unknown')} labelled, "
        f"fewer than {min_unknown}; "
    )
    return CandidateCounts(found.counts.astype(np.float64), "", note)


@register
class Pcss(NucleusStrategy):
    """Images with the most nuclei that the auxiliary detector finds closer to the known than to the unknown prototype.

    While fewer than `min_unknown` nuclei have been ticked unknown, the unknown prototype means nothing, and images are
    ranked by the count of all nuclei that the auxiliary detector finds (density); every reason says so.
    `Selection.scores` and `score` are the counts.

    Source: OSAL-ND (MICCAI), section 2.3, and its ablation "PCSS"; the cold start is this project's.

    Args:
        min_unknown: Nuclei ticked unknown from which the prototypes are trusted; 0 to trust them always.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "pcss"
    auxiliary = "prototype"
    needs = frozenset({"auxiliary_detections", "labelled_unknown"})
    columns = {"auxiliary_detections": frozenset({"prototype_distances"})}  # noqa: RUF012 - read-only by type

    def __init__(self, *, min_unknown: int = 10, min_score: float = 0.05) -> None:
        super().__init__(min_score=min_score)
        self.min_unknown = whole(self.name, "min_unknown", min_unknown, low=0)

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return self._counts(outputs).counts

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        first = self._counts(outputs)
        rows = top(first.counts, n, generator)
        return answer(
            outputs,
            rows,
            first.counts[rows],
            [
                f"{first.note}{nuclei(first.counts[row], first.kind)}, rank {k} of {len(first.counts)}"
                for k, row in enumerate(rows, start=1)
            ],
        )

    def _counts(self, outputs: PoolOutputs) -> CandidateCounts:
        found = self.counted(outputs.found("auxiliary_detections"), "auxiliary_detections", once=True)
        return candidate_counts(found, int(outputs.labelled_unknown or 0), self.min_unknown)
