# SPDX-License-Identifier: Apache-2.0
"""The nucleus part of docs/strategies.md against the code: names, needs and options."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tral_monai.strategies.registry import get_strategy, strategy_class, strategy_names

TEXT = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
TEXT = TEXT.split("## Nuclei: which fields of view")[1].split("## Promises")[0]
TABLE = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT.split("### What the methods compute")[0], flags=re.M))


def test_the_table_lists_every_strategy() -> None:
    assert set(TABLE) == set(strategy_names("nuclei"))


@pytest.mark.parametrize("name", strategy_names("nuclei"))
def test_the_table_tells_the_needs(name: str) -> None:
    strategy = get_strategy(name, "nuclei")
    for field in strategy.needs | strategy.wants:
        assert f"`{field}`" in TABLE[name] or TABLE[name] == "as `osal_nd`"


def test_every_option_is_listed_with_its_default() -> None:
    rows = [line.split("|")[2:4] for line in TEXT.split("### Nucleus options")[1].splitlines() if line.startswith("|")]
    listed = {(option.strip(" `"), default.strip(" `")) for option, default in rows[2:]}
    expected = {
        (p.name, "none" if p.default is None else f"{p.default:g}" if isinstance(p.default, float) else str(p.default))
        for name in strategy_names("nuclei")
        for p in inspect.signature(strategy_class(name, "nuclei")).parameters.values()
        if p.name not in ("args", "kwargs")
    }
    assert listed == expected
