# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.registry import get_strategy, register, strategy_from_config, strategy_names


def test_the_arms_of_the_paper_and_the_controls_are_there() -> None:
    names = strategy_names()
    assert {"tri_al_iter", "tri_al_ood", "tri_al_entropy", "random", "balanced", "uncertainty"} <= set(names)
    assert list(names) == sorted(names)


def test_options_reach_the_strategy() -> None:
    assert get_strategy("tri_al_entropy", ratio=2.0).ratio == 2.0  # type: ignore[attr-defined]


def test_unknown_name_lists_close_matches() -> None:
    with pytest.raises(StrategyError, match=r"No strategy is called 'tri_al_itr'\. Did you mean tri_al_iter"):
        get_strategy("tri_al_itr")


def test_part_of_a_name_finds_it() -> None:
    with pytest.raises(StrategyError, match=r"Did you mean .*tri_al_entropy"):
        get_strategy("entropy")


def test_unknown_option_lists_the_options() -> None:
    with pytest.raises(ConfigError, match=r"'tri_al_entropy' has no option rato.*ratio=1\.5, candidates="):
        get_strategy("tri_al_entropy", rato=2.0)


def test_a_strategy_without_options_says_so() -> None:
    with pytest.raises(ConfigError, match=r"Its options are: none"):
        get_strategy("random", seed=1)


def test_options_as_one_mapping() -> None:
    assert strategy_from_config("tri_al_entropy", {"ratio": 3}).ratio == 3.0  # type: ignore[attr-defined]
    assert strategy_from_config("random", None).name == "random"
    assert strategy_from_config("random", {}).name == "random"


def test_options_that_are_no_mapping() -> None:
    with pytest.raises(ConfigError, match="strategy_options must map option names to values"):
        strategy_from_config("random", ["ratio"])  # type: ignore[arg-type]


class _Base(Strategy):
    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return np.zeros(len(outputs.ids))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        return Selection.empty("never")


def test_a_taken_name_is_refused() -> None:
    class Random(_Base):
        name = "random"

    strategy_names()
    with pytest.raises(StrategyError, match="'random' is already taken by tral_monai"):
        register(Random)


def test_a_class_without_a_name_is_refused() -> None:
    class Nameless(_Base):
        pass

    with pytest.raises(StrategyError, match="Nameless must set a class attribute `name`"):
        register(Nameless)


def test_strategies_load_without_torch_or_sklearn() -> None:
    code = (
        "import sys; from tral_monai.strategies.registry import strategy_names; strategy_names(); "
        "print(sorted({'torch', 'sklearn', 'scipy', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_name_for_two_tasks() -> None:
    assert get_strategy("uncertainty", "tissue").task == "tissue"
    assert get_strategy("uncertainty", "nuclei").task == "nuclei"
    # Without a task the tissue strategy, as before there were others.
    assert get_strategy("uncertainty").task == "tissue"
    assert get_strategy("random", "nuclei") is not get_strategy("random", "tissue")
    assert type(get_strategy("random", "nuclei")) is type(get_strategy("random", "tissue"))
    assert get_strategy("osal_nd").task == "nuclei"


def test_names_by_task() -> None:
    tissue, nuclei = set(strategy_names("tissue")), set(strategy_names("nuclei"))
    assert tissue & nuclei == {"random", "uncertainty"}
    assert tissue | nuclei == set(strategy_names())
    assert "kcenter" in tissue - nuclei


def test_a_strategy_of_the_other_task() -> None:
    with pytest.raises(StrategyError, match=r"No nuclei strategy is called 'kcenter'\. It is a strategy for tissue"):
        get_strategy("kcenter", "nuclei")
    with pytest.raises(StrategyError, match=r"No tissue strategy is called 'osal_nd'\. It is a strategy for nuclei"):
        strategy_from_config("osal_nd", {}, "tissue")
    with pytest.raises(StrategyError, match=r"No nuclei strategy is called 'osalnd'\. Did you mean osal_nd"):
        get_strategy("osalnd", "nuclei")


def test_unknown_task() -> None:
    with pytest.raises(StrategyError, match=r"task of a strategy must be one of \['tissue', 'nuclei', 'any'\], but is"):
        get_strategy("random", "cells")  # type: ignore[arg-type]
    with pytest.raises(StrategyError, match="task of a strategy must be one of"):
        strategy_names("cells")  # type: ignore[arg-type]

    class Wrong(_Base):
        name = "wrong"
        task = "cells"  # type: ignore[assignment]

    with pytest.raises(StrategyError, match=r"Wrong\.task must be one of"):
        register(Wrong)


def test_a_strategy_for_any_task_takes_no_name_of_either() -> None:
    class Everywhere(_Base):
        name = "osal_nd"
        task = "any"

    with pytest.raises(StrategyError, match=r"'osal_nd' is already taken by .*OsalNd \(task 'nuclei'\)"):
        register(Everywhere)
