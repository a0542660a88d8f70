# SPDX-License-Identifier: Apache-2.0
"""The parts of OSAL-ND's two stages: class and location uncertainty of boxes, and nuclei near the known prototype."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import StrategyError
from tral_monai.strategies.base import FloatArray
from tral_monai.strategies.nuclei.overlaps import paired_iou


def evidential_uncertainty(evidence: npt.NDArray[Any]) -> FloatArray:
    """Un = 1 - sum_k e_k / Q = K / Q with Q = sum_k (e_k + 1), for evidence (B, K) -> (B,); 1 without any evidence.

    Source: OSAL-ND, Eq. 4.

    Raises:
        StrategyError: Evidence is negative.
    """
    e = np.asarray(evidence, dtype=np.float64)
    if (e < 0).any():
        raise StrategyError(
            f"evidence must be 0 or more, but the smallest is {e.min():.3g}; give the head's activated output "
            "(softplus or ReLU of the logits), not the logits."
        )
    return np.asarray(e.shape[1] / (e.sum(axis=1) + e.shape[1]))


def class_information(found: Detections) -> FloatArray:
    """CI of each image (n,): mean evidential uncertainty of its boxes; 0 without a box. Source: OSAL-ND, Eq. 5.

    Raises:
        StrategyError: There is no evidence, or some of it is negative.
    """
    if found.evidence is None:
        raise StrategyError("class uncertainty needs 'detections.evidence'; ask the detector for 'evidence' too.")
    return found.mean_per_image(evidential_uncertainty(found.evidence))


def location_information(found: Detections) -> FloatArray:
    """LI of each image (n,): mean of 1 - IoU(box, its proposal); 0 without a box. Source: OSAL-ND, Eq. 6.

    Raises:
        StrategyError: There are no proposals.
    """
    if found.proposals_px is None:
        raise StrategyError(
            "location uncertainty needs 'detections.proposals_px'; ask the detector for 'proposals_px' too."
        )
    return found.mean_per_image(1.0 - paired_iou(found.boxes_px, found.proposals_px))


def known_counts(found: Detections) -> FloatArray:
    """Nuclei of each image (n,) that lie closer to the known than to the unknown prototype.

    Source: OSAL-ND, section 2.3. A nucleus equally far from both is not counted.

    Raises:
        StrategyError: There are no distances to prototypes.
    """
    distances = found.prototype_distances
    if distances is None:
        raise StrategyError(
            "counting known nuclei needs 'auxiliary_detections.prototype_distances', which an auxiliary detector with "
            "prototypes gives; ask it for 'prototype_distances' too."
        )
    return found.sum_per_image(distances[:, 0] < distances[:, 1])
