# SPDX-License-Identifier: Apache-2.0
"""OSAL-ND without its location uncertainty: an ablation."""

from __future__ import annotations

from tral_monai.strategies.nuclei.osal_nd import OsalNd
from tral_monai.strategies.registry import register


@register
class OsalNdWithoutLi(OsalNd):
    """OSAL-ND with I = CI alone, the mean evidential uncertainty of the boxes; all else is the same.

    Source: OSAL-ND (MICCAI), ablation "w/o LI".
    """

    name = "osal_nd_without_li"
    columns = {  # noqa: RUF012 - read-only by type
        "detections": frozenset({"evidence"}),
        "auxiliary_detections": frozenset({"prototype_distances"}),
    }
    use_location = False
