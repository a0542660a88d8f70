# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.counts import CountsWriter, count_rows
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.slide_writer import SlideResult


def test_rows_by_hand(three_nuclei: NucleusMap) -> None:
    damaged = dataclasses.replace(three_nuclei, not_analysed_mm2=0.0125, failed_centres_level0=np.array([[150, 50]]))
    bare = dataclasses.replace(three_nuclei, analysed_mm2=0.0)
    results = [
        SlideResult(name="bad.png", stem="bad", status="failed", error="bad.png: the file is empty; copy it again"),
        SlideResult(name="a.png", stem="a", record={"result": damaged.describe(), "seconds": 3.0}),
        SlideResult(name="b.png", stem="b", status="kept", record={"result": bare.describe(), "seconds": 1.0}),
    ]
    failed, mapped, kept = count_rows(results)
    assert list(failed) == list(mapped) == list(kept)
    assert mapped == {
        "image": "a.png",
        "status": "mapped",
        "analysed_mm2": 0.02,
        "nuclei": 3,
        "tumour": 2,
        "lymphocyte": 1,
        "stroma": 0,
        "tumour_per_mm2": 100.0,
        "lymphocyte_per_mm2": 50.0,
        "stroma_per_mm2": 0.0,
        "not_analysed_tiles": 1,
        "not_analysed_mm2": 0.0125,  # of which no density is taken: 2 tumour on 0.02 mm2 are 100 per mm2
        "seconds": 3.0,
        "error": "",
    }
    assert (failed["nuclei"], failed["tumour"], failed["error"]) == (
        "",
        "",
        "bad.png: the file is empty; copy it again",
    )
    assert (failed["not_analysed_mm2"], kept["not_analysed_mm2"]) == ("", 0.0)
    assert (kept["status"], kept["tumour"], kept["tumour_per_mm2"]) == ("kept", 2, "")


@pytest.mark.parametrize("name", ["counts.txt", "a/b.csv"])
def test_the_file_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be the name of a \.csv file without a folder"):
        CountsWriter(name)
