# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tests.fixtures_cohort import tiny_cohort

__all__ = ["tiny_cohort"]
