# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.areas import AreasWriter, area_rows
from tral_monai.inference.slide_writer import SlideResult
from tral_monai.inference.tissue_map import TissueMap


def test_rows_by_hand(small_map: TissueMap) -> None:
    record = {"result": small_map.describe(), "seconds": 3.0}
    results = [
        SlideResult(name="bad.tif", stem="bad", status="failed", error="bad.tif: the file is empty; copy it again"),
        SlideResult(name="s.tif", stem="s", status="kept", record=record),
    ]
    failed, mapped = area_rows(results)
    assert list(failed) == list(mapped)
    assert mapped == {
        "slide": "s.tif",
        "status": "kept",
        "tissue_tiles": 10,
        "tissue_mm2": pytest.approx(0.09),  # seven stroma, one muscle; half a tile undefined, half not analysed
        "analysed_mm2": pytest.approx(0.085),
        "Background_mm2": pytest.approx(0.015),
        "Stroma_mm2": pytest.approx(0.07),
        "Muscle_mm2": pytest.approx(0.01),
        "Undefined_mm2": pytest.approx(0.005),
        "not_analysed_tiles": 1,
        "not_analysed_mm2": pytest.approx(0.005),  # half a tile; of no class, nor background
        "seconds": 3.0,
        "error": "",
    }
    assert failed["error"] == "bad.tif: the file is empty; copy it again"
    assert failed["Stroma_mm2"] == failed["not_analysed_mm2"] == failed["analysed_mm2"] == ""
    # 350 x 300 px of 1 um: every mm2 of the slide is in one column.
    assert sum(mapped[f"{name}_mm2"] for name in ("Background", "analysed", "not_analysed")) == pytest.approx(0.105)


def test_no_slide_gives_no_row() -> None:
    assert area_rows([]) == []


@pytest.mark.parametrize("name", ["areas.txt", "a/b.csv"])
def test_the_file_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be the name of a \.csv file without a folder"):
        AreasWriter(name)
