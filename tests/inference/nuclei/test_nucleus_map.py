# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.nucleus_map import NucleusMap


def test_counts_and_densities_by_hand(three_nuclei: NucleusMap) -> None:
    assert len(three_nuclei) == 3
    assert three_nuclei.counts() == {"tumour": 2, "lymphocyte": 1, "stroma": 0}
    assert three_nuclei.per_mm2() == {"tumour": 100.0, "lymphocyte": 50.0, "stroma": 0.0}


def test_without_an_area_there_is_no_density(three_nuclei: NucleusMap) -> None:
    empty = dataclasses.replace(three_nuclei, analysed_mm2=0.0)
    assert empty.per_mm2() == {"tumour": None, "lymphocyte": None, "stroma": None}


def test_its_description_is_plain_data(three_nuclei: NucleusMap) -> None:
    described = json.loads(json.dumps(three_nuclei.describe(), allow_nan=False))
    assert described["nuclei"] == 3
    assert described["nuclei_of_class"] == {"tumour": 2, "lymphocyte": 1, "stroma": 0}
    assert described["nuclei_per_mm2"]["lymphocyte"] == 50.0
    assert described["analysed"] == "whole image"
    assert described["not_analysed"] == {"tiles": 0, "mm2": 0.0, "centres_level0": [], "messages": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"boxes_level0": np.zeros((2, 4), dtype=np.float32)},
            r"boxes_level0 must have shape \(3, 4\), but has \(2, 4\)",
        ),
        ({"score": np.zeros(2, dtype=np.float32)}, r"score must have shape \(3,\), one per nucleus, but has \(2,\)"),
        ({"uncertainty": np.full(3, np.inf, dtype=np.float32)}, "uncertainty holds infinity"),
        ({"score": np.full(3, np.nan, dtype=np.float32)}, "a box and a score of finite numbers"),
        ({"labels": np.array([0, 3, 0])}, "labels must lie between 0 and 2, but reach 3"),
        ({"colours": {"tumour": (1, 2, 3)}}, r"colours must have every class, but lack \['lymphocyte', 'stroma'\]"),
    ],
)
def test_columns_are_checked(three_nuclei: NucleusMap, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(three_nuclei, **change)
