# SPDX-License-Identifier: Apache-2.0
from tral_monai.annotations.class_map import ClassMap
from tral_monai.annotations.paper_colors import PAPER_COLORS


def test_the_bladder_map_has_the_same_colours():
    colors = ClassMap.from_yaml("bladder").colors
    assert {name: tuple(color) for name, color in colors.items()} == {name: PAPER_COLORS[name] for name in colors}
    assert set(PAPER_COLORS) - set(colors) == {"Undefined"}
