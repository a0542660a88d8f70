# SPDX-License-Identifier: Apache-2.0
"""One registry of strategies, by name and task: what a config's `strategy: tri_al_quota` refers to."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TypeVar, get_args

import tral_monai.strategies
import tral_monai.strategies.nuclei
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import Strategy, Task

_REGISTRY: dict[tuple[str, Task], type[Strategy]] = {}
_TASKS: tuple[Task, ...] = get_args(Task)
_S = TypeVar("_S", bound=type[Strategy])


def register(cls: _S) -> _S:
    """Class decorator: make a strategy available under its `name` and `task`.

    One name may serve both tasks ("uncertainty"); a strategy for any task holds its name in both.

    Raises:
        StrategyError: The class has no name, its task is unknown, or another class already has the name there.
    """
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise StrategyError(f"{cls.__name__} must set a class attribute `name` before it is registered.")
    if cls.task not in _TASKS:
        raise StrategyError(f"{cls.__name__}.task must be one of {list(_TASKS)}, but is {cls.task!r}.")
    for task in _TASKS if cls.task == "any" else (cls.task, "any"):
        taken = _REGISTRY.get((name, task))
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            where = f"{taken.__module__}.{taken.__qualname__}"
            raise StrategyError(f"The strategy name '{name}' is already taken by {where} (task '{task}').")
    _REGISTRY[name, cls.task] = cls
    return cls


def strategy_names(task: Task | None = None) -> tuple[str, ...]:
    """The names for one task ("tissue" or "nuclei", with those for any task), or all registered names; sorted.

    Raises:
        StrategyError: There is no such task.
    """
    _load_own()
    _check_task(task)
    return tuple(sorted({name for name, of in _REGISTRY if task is None or of in (task, "any")}))


def strategy_class(name: str, task: Task | None = None) -> type[Strategy]:
    """The class behind a name. Without a task: the tissue strategy where both tasks have one of that name.

    Raises:
        StrategyError: No strategy has this name for this task; the message lists close matches.
    """
    _load_own()
    _check_task(task)
    for of in ("any", "tissue", "nuclei") if task is None else (task, "any"):
        cls = _REGISTRY.get((name, of))
        if cls is not None:
            return cls
    names = strategy_names(task)
    kind = f"{task} " if task else ""
    elsewhere = sorted(of for found, of in _REGISTRY if found == name)
    hint = f"It is a strategy for {' and '.join(elsewhere)}. " if elsewhere else ""
    if not hint:
        close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        close += [n for n in names if n not in close and str(name) and str(name) in n]
        hint = f"Did you mean {', '.join(close)}? " if close else ""
    raise StrategyError(f"No {kind}strategy is called '{name}'. {hint}There are: {', '.join(names)}.")


def get_strategy(name: str, task: Task | None = None, **options: object) -> Strategy:
    """Build a strategy.

    Args:
        name: A registered name, see `strategy_names()`.
        task: "tissue" or "nuclei"; without it the tissue strategy where both tasks have one of that name.
        **options: Keyword options of that strategy's class.

    Raises:
        StrategyError: No strategy has this name for this task; the message lists close matches.
        ConfigError: The strategy has no such option, or a value is out of range.
    """
    cls = strategy_class(name, task)
    known = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    unknown = sorted(set(options) - {p.name for p in known})
    if unknown:
        listed = ", ".join(f"{p.name}={p.default!r}" for p in known) or "none"
        raise ConfigError(f"Strategy '{name}' has no option {', '.join(unknown)}. Its options are: {listed}.")
    return cls(**options)


def strategy_from_config(name: str, options: Mapping[str, object] | None = None, task: Task | None = None) -> Strategy:
    """`get_strategy` with the options as one mapping, as a bundle config gives them.

    Raises:
        StrategyError: No strategy has this name.
        ConfigError: `options` is not a mapping, or the strategy refuses one of them.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f"strategy_options must map option names to values, but is {options!r}; write {{}} for none.")
    return get_strategy(name, task, **(options or {}))


def _check_task(task: Task | None) -> None:
    if task is not None and task not in _TASKS:
        raise StrategyError(f"The task of a strategy must be one of {list(_TASKS)}, but is {task!r}.")


@cache
def _load_own() -> None:
    for package in (tral_monai.strategies, tral_monai.strategies.nuclei):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
