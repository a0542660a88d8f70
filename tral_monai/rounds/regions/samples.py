# SPDX-License-Identifier: Apache-2.0
"""What people drew, as tables to train on: tiles for the tissue task, fields of view for the nucleus task."""

from __future__ import annotations

from tral_monai.rounds.regions.nucleus_samples import nucleus_samples
from tral_monai.rounds.regions.tissue_samples import tissue_samples

__all__ = ["nucleus_samples", "tissue_samples"]
