# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest


@pytest.fixture
def tral_data() -> Path:
    folder = os.environ.get("TRAL_DATA")
    if not folder:
        pytest.skip("real annotation files: set TRAL_DATA to the data folder")
    return Path(folder)
