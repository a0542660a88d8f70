# SPDX-License-Identifier: Apache-2.0
"""UTSS: the second stage of OSAL-ND alone."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer
from tral_monai.strategies.nuclei.information import class_information, location_information
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top


@register
class Utss(NucleusStrategy):
    """Images of the whole pool with the highest I = CI * LI; no candidates, no auxiliary detector.

    CI is the mean evidential uncertainty of an image's boxes, LI their mean 1 - IoU with their proposals; both are 0
    without a box. `Selection.scores` and `score` are I.

    Source: OSAL-ND (MICCAI), Eqs. 3 to 6, and its ablation "UTSS".

    Args:
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: `min_score` is out of range.
    """

    name = "utss"
    needs = frozenset({"detections"})
    columns = {"detections": frozenset({"evidence", "proposals_px"})}  # noqa: RUF012 - read-only by type

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        found = self.counted(outputs.found())
        return class_information(found) * location_information(found)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        found = self.counted(outputs.found())
        by_class, by_location = class_information(found), location_information(found)
        scores = by_class * by_location
        rows = top(scores, n, generator)
        return answer(
            outputs,
            rows,
            scores[rows],
            [
                f"class uncertainty {by_class[row]:.3f} x location uncertainty {by_location[row]:.3f}, "
                f"rank {k} of {len(scores)}"
                for k, row in enumerate(rows, start=1)
            ],
        )
