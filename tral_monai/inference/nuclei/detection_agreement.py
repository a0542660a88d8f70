# SPDX-License-Identifier: Apache-2.0
"""How far the nuclei that a faster detector finds are from those of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.inference.agreement import Agreement
from tral_monai.networks.nuclei.overlap import pairwise_iou


@dataclass(frozen=True)
class DetectionAgreement(Agreement):
    """Agreement of two detectors; ``class_agreement`` is the share of boxes that the other one has too.

    Of the two directions (boxes of the reference that the other misses, boxes that only the other has), it is the
    worse one. ``largest_probability_difference`` is that of the scores of partners.

    Attributes:
        boxes_reference: boxes of the reference.
        boxes_other: boxes of the other.
        boxes_alone: boxes without a partner, in the direction that has more of them.
    """

    boxes_reference: int = 0
    boxes_other: int = 0
    boxes_alone: int = 0

    @property
    def compared(self) -> int:
        """How many things were compared: nuclei. With none, the tiles say nothing."""
        return max(self.boxes_reference, self.boxes_other)

    @property
    def differing(self) -> int:
        """How many nuclei have no partner."""
        return self.boxes_alone

    def sentence(self, engine: str) -> str:
        """See :meth:`Agreement.sentence`."""
        broken = f"; NaN or infinite for {self.not_finite} images" if self.not_finite else ""
        if not self.compared:
            return f"{engine} and torch fp32 find no nuclei on {self.tiles} sampled tiles, which says nothing{broken}"
        return (
            f"{engine} finds {self.boxes_other} nuclei on {self.tiles} sampled tiles, torch fp32 "
            f"{self.boxes_reference}; {100 * self.class_agreement:.1f} % have a partner of their class; "
            f"largest difference of a score {self.largest_probability_difference:.2g}{broken}"
        )


def detection_agreement(
    reference: Detections, other: Detections, *, iou: float = 0.5, min_score: float = 0.0
) -> DetectionAgreement:
    """Compare what two detectors find in the same images.

    Args:
        reference: of the reference.
        other: of the other.
        iou: from which intersection over union on two boxes of one class are partners. Each box has one at most;
            better boxes of the reference choose first.
        min_score: boxes with a lower score need no partner, but may be one: else a box at the threshold of a map
            would count as lost for the last digit of its score.

    Raises:
        ConfigError: the images differ in number, or there is none.
    """
    if len(reference) != len(other) or not len(reference):
        raise ConfigError(
            f"detections to compare must be of the same images, at least one, but are of {len(reference)} and "
            f"{len(other)}"
        )
    lost, wanted = np.zeros(2, np.int64), np.zeros(2, np.int64)
    largest, broken = 0.0, 0
    for image in range(len(reference)):
        pair = (reference.of_image(image), other.of_image(image))
        if not all(np.isfinite(one.boxes_px).all() and np.isfinite(one.scores).all() for one in pair):
            broken += 1
            continue
        partners = _partners(*pair, iou)
        for side, one in enumerate(pair):
            counted = one.scores >= min_score
            alone = np.ones(len(counted), dtype=bool)
            alone[partners[:, side]] = False
            wanted[side] += int(counted.sum())
            lost[side] += int((counted & alone).sum())
        differences = np.abs(pair[0].scores[partners[:, 0]] - pair[1].scores[partners[:, 1]])
        largest = max(largest, float(differences.max(initial=0.0)))
    share = float((1 - lost / np.maximum(wanted, 1)).min())
    return DetectionAgreement(
        tiles=len(reference),
        class_agreement=share,
        largest_probability_difference=1.0 if broken else largest,
        not_finite=broken,
        boxes_reference=int(wanted[0]),
        boxes_other=int(wanted[1]),
        boxes_alone=int(lost.max()),
    )


def _partners(reference: Detections, other: Detections, iou: float) -> npt.NDArray[np.int64]:
    """(p, 2) rows of the boxes that belong together."""
    if not len(reference.labels) or not len(other.labels):
        return np.zeros((0, 2), dtype=np.int64)
    boxes = (torch.from_numpy(np.asarray(one.boxes_px, dtype=np.float32)) for one in (reference, other))
    overlap = np.asarray(pairwise_iou(*boxes))
    overlap[reference.labels[:, None] != other.labels[None]] = -1.0
    found = []
    for row in np.argsort(-reference.scores, kind="stable"):
        column = int(overlap[row].argmax())
        if overlap[row, column] >= iou:
            found.append((int(row), column))
            overlap[:, column] = -1.0
    return np.array(found, dtype=np.int64).reshape(-1, 2)
