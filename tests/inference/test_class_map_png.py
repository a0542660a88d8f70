# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tral_monai.errors import ConfigError
from tral_monai.inference.class_map_png import ClassMapWriter, read_class_map, write_class_map
from tral_monai.inference.tissue_map import TissueMap


def test_values_colours_and_legend_by_hand(small_map: TissueMap, tmp_path: Path) -> None:
    write_class_map(tmp_path / "m.png", small_map, colours={"Muscle": (1, 2, 3)})
    with Image.open(tmp_path / "m.png") as image:
        assert (image.mode, image.size) == ("P", (4, 3))
        assert image.text["step_level0"] == "100.0"  # type: ignore[attr-defined]
        rgb = np.asarray(image.convert("RGB"))
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[0, 1].tolist() == [240, 50, 230]  # the paper's stroma
    assert rgb[1, 1].tolist() == [1, 2, 3]
    assert rgb[2, 3].tolist() == [128, 128, 128]  # the paper's undefined
    values, names = read_class_map(tmp_path / "m.png")
    assert values.tolist() == small_map.class_index.tolist()
    assert names == ("Background", "Stroma", "Muscle", "Undefined", "Not analysed")


def test_a_map_of_350_000_tiles_stays_small(small_map: TissueMap, tmp_path: Path) -> None:
    import dataclasses

    big = dataclasses.replace(small_map, class_index=np.tile(small_map.class_index, (166, 175)))
    write_class_map(tmp_path / "m.png", big)
    assert read_class_map(tmp_path / "m.png")[0].shape == (498, 700)
    assert (tmp_path / "m.png").stat().st_size < 350_000


def test_colours_are_checked_before_the_run() -> None:
    with pytest.raises(ConfigError, match="colour of 'Fat'"):
        ClassMapWriter(colours={"Fat": (1, 2)})
