# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tral_monai.report.palette import cell_color, chart_styles, ink_on, map_colors


def test_no_two_of_twenty_series_look_the_same() -> None:
    styles = chart_styles([f"class {i}" for i in range(20)])
    assert len({(style.color, style.marker) for style in styles.values()}) == 20
    first = list(styles.values())[:6]
    assert len({style.marker for style in first}) == len({str(style.dash) for style in first}) == 6


def test_recorded_colours_win_and_odd_ones_are_replaced() -> None:
    colors = map_colors(["Blood", "Stroma", "Nerve"], {"Blood": [1, 2, 3], "Nerve": [300, -5, 16]})
    assert colors["Blood"] == "#010203"
    assert colors["Stroma"] == "#f032e6"  # the paper's (240, 50, 230)
    assert colors["Nerve"] == "#ff0010"
    assert map_colors(["Stroma"], {"Stroma": [1]})["Stroma"] == "#f032e6"


def test_ink_reads_on_its_ground() -> None:
    assert ink_on("#000000") == "#ffffff"
    assert ink_on("#ffffff") == "#000000"
    assert ink_on("#0072b2") == "#ffffff"  # luminance 0.153: 5.2 against white, 4.1 against black
    assert ink_on("#e69f00") == "#000000"


def test_cells_go_from_white_to_their_hue() -> None:
    assert cell_color(0.0, True) == cell_color(0.0, False) == "#ffffff"
    assert cell_color(1.0, True) == "#0072b2"
    assert cell_color(1.0, False) == "#d55e00"
