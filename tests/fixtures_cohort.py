# SPDX-License-Identifier: Apache-2.0
"""The generated cohort as a fixture: a room's conftest.py says `from tests.fixtures_cohort import tiny_cohort`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tral_monai.data.generated import generate_cohort


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the cohort.csv of four small slides (train A, val A, train B, test B), all five classes on each.

    Shared by the whole session: read it, never write into its folder.
    """
    return generate_cohort(tmp_path_factory.mktemp("tiny_cohort"), preset="tiny", seed=0)
