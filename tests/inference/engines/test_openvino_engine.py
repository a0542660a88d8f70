# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.inference.engines.tiny import check_engine
from tral_monai.inference.engines.available import list_engines

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")


def test_every_batch_size() -> None:
    check_engine("openvino", "fp32", tolerance=1e-5)


def test_every_batch_size_in_bf16() -> None:
    reason = next(row.reason for row in list_engines() if (row.name, row.precision) == ("openvino", "bf16"))
    if reason is not None:
        pytest.skip(reason)
    check_engine("openvino", "bf16", tolerance=2e-2)
