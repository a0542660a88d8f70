# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests. The first lines open a slide with cuCIM, before any test imports torch."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["tests.fixtures_cohort"]


def _open_cucim_before_torch() -> None:
    # On kernels without /proc/modules, cuCIM hangs for ever unless it opened a slide before torch was imported.
    if importlib.util.find_spec("cucim") is None or "torch" in sys.modules:
        return
    import tifffile
    from cucim.clara import CuImage

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.tif"
        tifffile.imwrite(path, np.full((64, 64, 3), 255, np.uint8), tile=(32, 32), photometric="rgb")
        image = CuImage(str(path))
        assert image.size("XYC") == [64, 64, 3]
        image.close()


_open_cucim_before_torch()


@pytest.fixture(scope="session")
def tral_data() -> Path:
    """Folder of the real data sets, from the environment variable TRAL_DATA; tests that need it are skipped without."""
    folder = os.environ.get("TRAL_DATA")
    if not folder:
        pytest.skip("needs real data: set TRAL_DATA to the folder that holds it")
    return Path(folder)
