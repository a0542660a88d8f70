# SPDX-License-Identifier: Apache-2.0
"""One registry of strategies, by name: what a config's `strategy: tri_al_quota` refers to."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import tral_monai.strategies
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import Strategy

_REGISTRY: dict[str, type[Strategy]] = {}
_S = TypeVar("_S", bound=type[Strategy])


def register(cls: _S) -> _S:
    """Class decorator: make a strategy available under its `name`.

    Raises:
        StrategyError: The class has no name, or another class already has it.
    """
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise StrategyError(f"{cls.__name__} must set a class attribute `name` before it is registered.")
    taken = _REGISTRY.get(name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise StrategyError(f"The strategy name '{name}' is already taken by {taken.__module__}.{taken.__qualname__}.")
    _REGISTRY[name] = cls
    return cls


def strategy_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    _load_own()
    return tuple(sorted(_REGISTRY))


def get_strategy(name: str, **options: object) -> Strategy:
    """Build a strategy.

    Args:
        name: A registered name, see `strategy_names()`.
        **options: Keyword options of that strategy's class.

    Raises:
        StrategyError: No strategy has this name; the message lists close matches.
        ConfigError: The strategy has no such option, or a value is out of range.
    """
    _load_own()
    cls = _REGISTRY.get(name)
    if cls is None:
        close = difflib.get_close_matches(str(name), _REGISTRY, n=3, cutoff=0.5)
        close += [n for n in sorted(_REGISTRY) if n not in close and str(name) and str(name) in n]
        hint = f"Did you mean {', '.join(close)}? " if close else ""
        raise StrategyError(f"No strategy is called '{name}'. {hint}There are: {', '.join(strategy_names())}.")
    known = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    unknown = sorted(set(options) - {p.name for p in known})
    if unknown:
        listed = ", ".join(f"{p.name}={p.default!r}" for p in known) or "none"
        raise ConfigError(f"Strategy '{name}' has no option {', '.join(unknown)}. Its options are: {listed}.")
    return cls(**options)


def strategy_from_config(name: str, options: Mapping[str, object] | None = None) -> Strategy:
    """`get_strategy` with the options as one mapping, as a bundle config gives them.

    Raises:
        StrategyError: No strategy has this name.
        ConfigError: `options` is not a mapping, or the strategy refuses one of them.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f"strategy_options must map option names to values, but is {options!r}; write {{}} for none.")
    return get_strategy(name, **(options or {}))


@cache
def _load_own() -> None:
    for module in pkgutil.iter_modules(tral_monai.strategies.__path__):
        importlib.import_module(f"{tral_monai.strategies.__name__}.{module.name}")
