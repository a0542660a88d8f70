# SPDX-License-Identifier: Apache-2.0
"""One colour per class: the paper's where it names one, colour-blind safe ones for every other class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tral_monai.annotations.paper_colors import PAPER_COLORS
from tral_monai.errors import ConfigError

Rgb = tuple[int, int, int]

NOT_ANALYSED_COLOUR: Rgb = (255, 225, 25)  # must catch the eye and be no tissue's colour

# Colours that stay apart with every common colour blindness, from Paul Tol's "bright" and "muted" schemes and, for
# the orange, Okabe and Ito's. Which of them is used first depends on what is taken already.
_OTHERS: tuple[Rgb, ...] = (
    (230, 159, 0),
    (68, 170, 153),
    (238, 102, 119),
    (102, 204, 238),
    (34, 136, 51),
    (136, 34, 85),
    (153, 153, 51),
    (170, 51, 119),
    (221, 204, 119),
    (51, 34, 136),
    (17, 119, 51),
)


def class_colours(names: Iterable[str], given: Mapping[str, Iterable[int]] | None = None) -> dict[str, Rgb]:
    """Choose one colour per class; the same names in the same order always get the same colours.

    Args:
        names: class names.
        given: colours that win over the built-in ones, name -> (r, g, b), 0 to 255.

    Returns:
        Name -> (r, g, b), in the order of ``names``.

    Raises:
        ConfigError: a given colour is not three whole numbers from 0 to 255.
    """
    fixed = {**PAPER_COLORS, "Not analysed": NOT_ANALYSED_COLOUR}
    fixed.update(given_colours(given))
    wanted = list(dict.fromkeys(names))
    taken = [fixed[name] for name in wanted if name in fixed]
    result: dict[str, Rgb] = {}
    for name in wanted:
        if name not in fixed:
            taken.append(_farthest(taken))
        result[name] = fixed.get(name, taken[-1])
    return result


def given_colours(given: Mapping[str, Iterable[int]] | None) -> dict[str, Rgb]:
    """Check colours that a user gave.

    Args:
        given: name -> (r, g, b), or None.

    Returns:
        The same as tuples.

    Raises:
        ConfigError: a colour is not three whole numbers from 0 to 255.
    """
    return {name: _checked(name, colour) for name, colour in (given or {}).items()}


def _farthest(taken: list[Rgb]) -> Rgb:
    """The colour that is least like all those taken; after every lap they come again, darker each time."""
    lap = 0
    while True:
        candidates = [tuple(int(part * 0.75**lap) for part in colour) for colour in _OTHERS]
        left = [colour for colour in candidates if colour not in taken]
        if left:
            return max(left, key=lambda colour: min((_distance(colour, other) for other in taken), default=0.0))  # type: ignore[return-value]
        lap += 1


def _distance(first: Sequence[int], second: Sequence[int]) -> float:
    """How different two colours look ("redmean", a weighted RGB distance that is close enough to choose by)."""
    red = (first[0] + second[0]) / 2
    weights = (2 + red / 256, 4.0, 2 + (255 - red) / 256)
    return sum(weight * (a - b) ** 2 for weight, a, b in zip(weights, first, second, strict=True))


def _checked(name: str, colour: Iterable[int]) -> Rgb:
    parts = tuple(colour)
    if len(parts) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in parts):
        raise ConfigError(f"the colour of '{name}' must be three whole numbers from 0 to 255, but is {parts}")
    return parts
