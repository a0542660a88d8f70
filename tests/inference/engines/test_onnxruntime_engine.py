# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.inference.engines.tiny import check_engine

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def test_every_batch_size() -> None:
    check_engine("onnxruntime", "fp32", tolerance=1e-5)
