# SPDX-License-Identifier: Apache-2.0
"""docs/strategies.md against the code: names, needs, options and the examples."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tral_monai.strategies import registry
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy, strategy_class, strategy_names

TEXT = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT.split("## Options")[0], flags=re.M))
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


def test_the_table_lists_every_strategy() -> None:
    assert set(TABLE) == set(strategy_names("tissue"))


@pytest.mark.parametrize("name", strategy_names("tissue"))
def test_the_table_tells_the_needs(name: str) -> None:
    for field in get_strategy(name).needs:
        assert f"`{field}`" in TABLE[name] or TABLE[name].startswith("as `tri_al_iter`")


def test_every_option_is_listed_with_its_default() -> None:
    options = TEXT.split("## Options")[1].split("## Class quotas")[0]
    rows = [line.split("|")[2:4] for line in options.splitlines() if line.startswith("|")][2:]
    listed = [(option.strip(" `"), default.strip(" `")) for option, default in rows]
    expected = {
        (p.name, "none" if p.default is None else f"{p.default:g}" if isinstance(p.default, float) else str(p.default))
        for name in strategy_names("tissue")
        for p in inspect.signature(strategy_class(name, "tissue")).parameters.values()
        if p.name not in ("args", "kwargs")
    }
    assert set(listed) == expected


def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES[0], {})
    # FNR 0.1 and 0.3, smoothed 0.157 and 0.257: one sample each of two, the less certain of each predicted class.
    assert capsys.readouterr().out.startswith("[12 14] ('FNR of Blood is 0.16: 1 of 2 asked; predicted, entropy 0.673'")


def test_the_own_strategy_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    scope: dict[str, Any] = {"__name__": "example"}
    exec(EXAMPLES[1], scope)
    outputs = PoolOutputs(ids=[1, 2, 3], features=np.array([[1.0, 1.0], [9.0, 9.0], [5.0, 5.0]]))
    assert get_strategy("brightest").select(outputs, 2, np.random.default_rng(0)).ids.tolist() == [2, 3]
