# SPDX-License-Identifier: Apache-2.0
"""One colour per class: the paper's where it names one, colour-blind safe ones for every other class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tral_monai.errors import ConfigError

Rgb = tuple[int, int, int]

# Fuster et al. 2023 (TRI-AL), the colours of their figures.
PAPER_COLOURS: dict[str, Rgb] = {
    "Background": (0, 0, 0),
    "Blood": (128, 0, 0),
    "Damaged": (0, 130, 200),
    "Muscle": (60, 180, 75),
    "Stroma": (240, 50, 230),
    "Urothelium": (245, 130, 48),
    "Undefined": (128, 128, 128),
}
NOT_ANALYSED_COLOUR: Rgb = (255, 225, 25)  # must catch the eye and be no tissue's colour

# Paul Tol's "bright" and "muted" schemes without their greys: distinct with every common colour blindness, and
# reordered so that the first ones lie far from the paper's colours.
_OTHERS: tuple[Rgb, ...] = (
    (238, 102, 119),
    (34, 136, 51),
    (68, 119, 170),
    (204, 187, 68),
    (136, 34, 85),
    (102, 204, 238),
    (51, 34, 136),
    (153, 153, 51),
    (170, 51, 119),
    (68, 170, 153),
    (17, 119, 51),
    (221, 204, 119),
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
    chosen = {name: _checked(name, colour) for name, colour in (given or {}).items()}
    result: dict[str, Rgb] = {}
    fallback = 0
    for name in names:
        if name in chosen:
            result[name] = chosen[name]
        elif name in PAPER_COLOURS:
            result[name] = PAPER_COLOURS[name]
        elif name == "Not analysed":
            result[name] = NOT_ANALYSED_COLOUR
        else:
            result[name] = _other(fallback)
            fallback += 1
    return result


def _other(number: int) -> Rgb:
    colour = _OTHERS[number % len(_OTHERS)]
    lap = number // len(_OTHERS)  # after one lap the colours come again, darker each time
    return tuple(int(part * 0.75**lap) for part in colour)  # type: ignore[return-value]


def _checked(name: str, colour: Iterable[int]) -> Rgb:
    parts = tuple(colour)
    if len(parts) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in parts):
        raise ConfigError(f"the colour of '{name}' must be three whole numbers from 0 to 255, but is {parts}")
    return parts
