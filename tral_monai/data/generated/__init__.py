# SPDX-License-Identifier: Apache-2.0
"""Slides made from a seed, for people without data: the demo, the test fixtures and the docs use them."""

from tral_monai.data.generated.cohort import generate_cohort

__all__ = ["generate_cohort"]
