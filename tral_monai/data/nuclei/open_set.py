# SPDX-License-Identifier: Apache-2.0
"""Which nucleus classes a detector is trained on (known), and which only get in the way (unknown)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tral_monai.errors import ConfigError, UnknownClassError

UNKNOWN = "unknown"
"""The annotator's tick on a nucleus of a class that is not asked for."""
IGNORED = "ignored"
"""A nucleus that counts for nothing: cut at an edge, too small, or of no class that anybody could name."""


@dataclass(frozen=True)
class OpenSet:
    """The division of a data set's classes.

    Args:
        known: Class names to detect, in the detector's order.
        unknown: All other class names that occur.

    Raises:
        ConfigError: No class is known, a class stands twice, or one is called ``unknown`` or ``ignored``.
    """

    known: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for side in ("known", "unknown"):
            names = getattr(self, side)
            if isinstance(names, str):
                raise ConfigError(f"the {side} classes must be a list of names, but are the text {names!r}")
            object.__setattr__(self, side, tuple(str(name) for name in names))
        names = (*self.known, *self.unknown)
        if not self.known:
            raise ConfigError("an open-set split needs at least one known class, but has none")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"a class stands once in an open-set split, but {twice} stand more than once")
        taken = sorted({UNKNOWN, IGNORED} & set(names))
        if taken:
            raise ConfigError(f"{taken} are answers of the annotator and cannot be class names; rename these classes")

    def answer(self, class_name: str) -> str:
        """What an annotator says of a nucleus: its class where it is known, else ``unknown``, or ``ignored``.

        Raises:
            UnknownClassError: The class is on neither side.
        """
        if class_name in self.known or class_name == IGNORED:
            return class_name
        if class_name in self.unknown:
            return UNKNOWN
        raise UnknownClassError(
            f"class '{class_name}' is neither known {list(self.known)} nor unknown {list(self.unknown)}; "
            "add it to one of them"
        )

    def answers(self, class_names: Iterable[str]) -> tuple[str, ...]:
        """:meth:`answer` for many nuclei."""
        return tuple(self.answer(name) for name in class_names)

    @classmethod
    def of(cls, known: Sequence[str], present: Iterable[str]) -> OpenSet:
        """Every class that is present and not known is unknown.

        Raises:
            ConfigError: See :class:`OpenSet`.
        """
        return cls(tuple(known), tuple(sorted(set(present) - set(known) - {IGNORED})))
