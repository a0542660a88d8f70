# SPDX-License-Identifier: Apache-2.0
"""Class names as annotators wrote them to the classes of a network, by ordered rules."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from tral_monai.annotations.model import Color
from tral_monai.errors import ConfigError, UnknownClassError

_KEYS = ("classes", "rules", "colors", "unknown", "unclassified", "carve_out")
_RULE_KEYS = ("match", "class", "how", "exact", "case_sensitive")


@dataclasses.dataclass(frozen=True)
class ClassRule:
    """Names that hold (or are) one of some texts mean one class.

    Attributes:
        match: the texts.
        class_name: the class meant, or None: such annotations are left out.
        how: ``substring`` (the text stands anywhere in the name) or ``exact``.
        case_sensitive: whether upper and lower case differ.
    """

    match: tuple[str, ...]
    class_name: str | None
    how: Literal["substring", "exact"] = "substring"
    case_sensitive: bool = True

    def __post_init__(self) -> None:
        if not self.match or not all(isinstance(text, str) and text for text in self.match):
            raise ConfigError(
                f"a class rule's 'match' must be text (in quotes where YAML would read a number, yes or no), "
                f"but is {list(self.match)}"
            )
        if self.how not in ("substring", "exact"):
            raise ConfigError(f"a class rule's 'how' must be substring or exact, but is {self.how!r}")

    def fits(self, name: str) -> bool:
        """Whether a name follows this rule."""
        texts = self.match if self.case_sensitive else tuple(text.casefold() for text in self.match)
        name = name if self.case_sensitive else name.casefold()
        return name in texts if self.how == "exact" else any(text in name for text in texts)

    def __str__(self) -> str:
        texts = "|".join(self.match)
        return f"{texts}{' (exact)' if self.how == 'exact' else ''} -> {self.class_name or 'dropped'}"


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Ordered rules; the first one that fits a name decides.

    Args:
        classes: the network's classes in the order of its outputs.
        rules: the rules in order. A target that is no class must stand in ``carve_out``: its area is taken from
            all classes, and gives no tiles itself.
        colors: (r, g, b) of classes.
        unknown: what to do with a name that fits no rule: ``error`` or ``drop``.
        unclassified: the same for annotations without a class.
        carve_out: classes in order of priority, highest first. The area of each is taken from every class that
            follows it here or does not stand here.

    Raises:
        ConfigError: a class stands twice, a rule or colour names no class, or a setting has another value.
    """

    classes: tuple[str, ...]
    rules: tuple[ClassRule, ...]
    colors: dict[str, Color] = dataclasses.field(default_factory=dict)
    unknown: Literal["error", "drop"] = "error"
    unclassified: Literal["error", "drop"] = "drop"
    carve_out: tuple[str, ...] = ()

    def __init__(
        self,
        classes: Sequence[str],
        rules: Sequence[ClassRule | Mapping[str, Any]],
        *,
        colors: Mapping[str, Sequence[int]] | None = None,
        unknown: str = "error",
        unclassified: str = "drop",
        carve_out: Sequence[str] = (),
    ) -> None:
        values = {
            "classes": _names(classes, "classes"),
            "rules": tuple(rule if isinstance(rule, ClassRule) else _rule(rule) for rule in _list(rules, "rules")),
            "colors": {str(name): _color(name, color) for name, color in (colors or {}).items()},
            "unknown": unknown,
            "unclassified": unclassified,
            "carve_out": _names(carve_out, "carve_out"),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if not self.classes:
            raise ConfigError("a class map needs at least one class in 'classes'")
        for setting in ("unknown", "unclassified"):
            if getattr(self, setting) not in ("error", "drop"):
                raise ConfigError(f"'{setting}' must be error or drop, but is {getattr(self, setting)!r}")
        known = (*self.classes, *self.carve_out)
        for rule in self.rules:
            if rule.class_name is not None and rule.class_name not in known:
                raise ConfigError(
                    f"the rule '{rule}' names no class; expected one of {', '.join(known)}, or null to drop"
                )
        for name in self.colors:
            if name not in known:
                raise ConfigError(f"'colors' names '{name}', which is no class; the classes are {', '.join(known)}")

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> ClassMap:
        """Read a class map; ``tral_monai/annotations/class_maps/bladder.yaml`` is an example with every key explained.

        Args:
            path: the YAML file, or the name of one that the package brings, such as ``bladder``.

        Raises:
            ConfigError: the file is missing, no YAML, or holds an unknown key or value.
        """
        file = Path(path)
        shipped = Path(__file__).parent / "class_maps" / f"{path}.yaml"
        if not file.suffix and not file.exists() and shipped.is_file():
            file = shipped
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"class map {path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"class map {file.name}: not valid YAML ({error})") from error
        if not isinstance(content, dict):
            raise ConfigError(f"class map {file.name}: expected keys {', '.join(_KEYS)}")
        unknown = [key for key in content if key not in _KEYS]
        missing = [key for key in ("classes", "rules") if key not in content]
        if unknown or missing:
            raise ConfigError(
                f"class map {file.name}: expected keys {', '.join(_KEYS)}; unknown: {unknown}, missing: {missing}"
            )
        try:
            return cls(**content)
        except ConfigError as error:
            raise ConfigError(f"class map {file.name}: {error}") from error

    @classmethod
    def identity(cls, classes: Sequence[str], *, colors: Mapping[str, Sequence[int]] | None = None) -> ClassMap:
        """Each name is its own class; any other name is an error.

        Args:
            classes: class names in the order of the network's outputs.
            colors: (r, g, b) of classes.
        """
        return cls(classes, [ClassRule((name,), name, "exact") for name in classes], colors=colors)

    def map(self, name: str | None) -> str | None:
        """The class that a name means, or None: annotations of that name are left out.

        Args:
            name: class name of an annotation, None where it has none.

        Raises:
            UnknownClassError: no rule fits and ``unknown`` (for None: ``unclassified``) is ``error``.
        """
        for rule in self.rules:
            if name is not None and rule.fits(name):
                return rule.class_name
        if (self.unclassified if name is None else self.unknown) == "drop":
            return None
        raise self.unknown_error([name])

    def is_unknown(self, name: str | None) -> bool:
        """Whether :meth:`map` would raise for a name."""
        if name is None:
            return self.unclassified == "error"
        return self.unknown == "error" and not any(rule.fits(name) for rule in self.rules)

    def unknown_error(self, names: Iterable[str | None], *, seen: Iterable[str | None] = ()) -> UnknownClassError:
        """The error for names that fit no rule.

        Args:
            names: these names.
            seen: all names in the annotations.
        """
        named = ", ".join("(unclassified)" if name is None else f"'{name}'" for name in names)
        all_seen = ", ".join(sorted({f"'{name}'" for name in seen if name is not None}))
        return UnknownClassError(
            f"no rule of the class map fits {named}{f'; names seen: {all_seen}' if all_seen else ''}. "
            f"Rules: {'; '.join(map(str, self.rules)) or 'none'}. Add a rule ('class: null' leaves a name out) or set "
            "'unknown: drop' ('unclassified: drop' for annotations without a class)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same map as plain lists and dicts, as :meth:`from_yaml` reads them."""
        return {
            "classes": list(self.classes),
            "rules": [
                {
                    "match": list(rule.match),
                    "class": rule.class_name,
                    "how": rule.how,
                    "case_sensitive": rule.case_sensitive,
                }
                for rule in self.rules
            ],
            "colors": {name: list(color) for name, color in self.colors.items()},
            "unknown": self.unknown,
            "unclassified": self.unclassified,
            "carve_out": list(self.carve_out),
        }


def _list(value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise ConfigError(f"'{key}' must be a list, but is {value!r}")
    return value


def _names(value: Any, key: str) -> tuple[str, ...]:
    names = tuple(_list(value, key))
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"'{key}' must be a list of texts, but holds {name!r}; put it in quotes")
        if names.count(name) > 1:
            raise ConfigError(f"'{key}' holds '{name}' more than once")
    return names


def _rule(value: Any) -> ClassRule:
    if not isinstance(value, Mapping) or "match" not in value or "class" not in value:
        raise ConfigError(f"a class rule needs 'match' and 'class' (null drops), but is {value!r}")
    for key in value:
        if key not in _RULE_KEYS:
            raise ConfigError(f"a class rule has the keys {', '.join(_RULE_KEYS)}, but found '{key}'")
    if "how" in value and "exact" in value:
        raise ConfigError(f"a class rule has either 'how' or 'exact', not both: {value!r}")
    match = value["match"]
    return ClassRule(
        match=tuple(match) if isinstance(match, (list, tuple)) else (match,),
        class_name=value["class"],
        how=value.get("how", "exact" if value.get("exact", False) else "substring"),
        case_sensitive=bool(value.get("case_sensitive", True)),
    )


def _color(name: Any, color: Any) -> Color:
    channels = list(color) if isinstance(color, (list, tuple)) else []
    if len(channels) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in channels):
        raise ConfigError(
            f"the colour of '{name}' must be a list [red, green, blue] of 0 to 255 (MONAI's configs change '#'), "
            f"but is {color!r}"
        )
    return channels[0], channels[1], channels[2]
