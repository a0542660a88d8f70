# SPDX-License-Identifier: Apache-2.0
"""How charts are drawn, apart for colour-blind readers and in grey print (colours: Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tral_monai.inference.palette import class_colours

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # its yellow is lost on white
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "★")  # the markers as text, for legends outside of the charts
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))


class ChartStyle(NamedTuple):
    """How one series is drawn: colour as #rrggbb, matplotlib marker and dash pattern, the marker as a character."""

    color: str
    marker: str
    dash: Any
    glyph: str


def chart_styles(names: Sequence[str]) -> dict[str, ChartStyle]:
    """A style per name, in order. Colours repeat after seven names, but never together with the marker."""
    return {
        name: ChartStyle(
            OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)], GLYPHS[i % len(GLYPHS)]
        )
        for i, name in enumerate(names)
    }


def map_colors(names: Sequence[str], recorded: Mapping[str, Sequence[int]] | None) -> dict[str, str]:
    """Colours of the tissue maps as #rrggbb: those recorded in the run, those that inference chooses for the rest."""
    given = {
        name: [min(max(int(channel), 0), 255) for channel in color]
        for name, color in (recorded or {}).items()
        if len(color) == 3
    }
    return {name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in class_colours(names, given).items()}


def cell_color(share: float, right: bool) -> str:
    """Ground of a confusion cell as #rrggbb: from white to blue on the diagonal, to vermillion off it."""
    end = (0, 114, 178) if right else (213, 94, 0)
    return "#{:02x}{:02x}{:02x}".format(*(round(255 + (channel - 255) * min(max(share, 0.0), 1.0)) for channel in end))


def ink_on(color: str) -> str:
    """Black or white, whichever reads better on a colour given as #rrggbb (relative luminance of WCAG 2)."""
    channels = [int(color[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"
