# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.engines import speed


def test_a_speed_is_tiles_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    clock = iter([100.0, 100.0, 112.0])  # start, after the third batch of eight, end
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert speed.small_network_speed("torch", "fp32") == 2.0


def test_an_engine_that_does_not_run_here() -> None:
    with pytest.raises(ConfigError, match="fp16 is for GPUs"):
        speed.small_network_speed("torch", "fp16")
