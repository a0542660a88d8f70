# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.inference.engines.tiny import check_engine
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.available import list_engines, require_engine


def _runs_here() -> bool:
    return next(row.reason is None for row in list_engines() if (row.name, row.precision) == ("compile", "fp32"))


@pytest.mark.skipif(not _runs_here(), reason="torch.compile needs a C++ compiler")
def test_every_batch_size() -> None:
    check_engine("compile", "fp32", tolerance=1e-5)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"torch\.compile needs a C\+\+ compiler, but there is no g\+\+ or clang\+\+"):
        require_engine("compile", "fp32", "cpu")
