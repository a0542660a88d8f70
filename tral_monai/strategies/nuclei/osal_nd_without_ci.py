# SPDX-License-Identifier: Apache-2.0
"""OSAL-ND without its class uncertainty: an ablation."""

from __future__ import annotations

from tral_monai.strategies.nuclei.osal_nd import OsalNd
from tral_monai.strategies.registry import register


@register
class OsalNdWithoutCi(OsalNd):
    """OSAL-ND with I = LI alone, the mean 1 - IoU of the boxes with their proposals; all else is the same.

    Source: OSAL-ND (MICCAI), ablation "w/o CI".
    """

    name = "osal_nd_without_ci"
    columns = {  # noqa: RUF012 - read-only by type
        "detections": frozenset({"proposals_px"}),
        "auxiliary_detections": frozenset({"prototype_distances"}),
    }
    use_class = False
