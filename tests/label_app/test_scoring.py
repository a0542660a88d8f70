# SPDX-License-Identifier: Apache-2.0
import json

import pandas as pd
import pytest

pytest.importorskip("monailabel")

from tests.rounds.regions.colour_site import make_slides, record, tissue_site
from tral_monai.label_app.scoring import RegionScoring
from tral_monai.rounds.regions.region import Region, RegionQuery


@pytest.fixture
def task(tmp_path):
    task = tissue_site(make_slides(tmp_path / "slides", ("a", "b")))
    task.folder.mkdir(parents=True, exist_ok=True)
    return task


def test_before_anything_was_asked(task):
    assert RegionScoring(task)({}, None) == {"round": 0, "slides": {}}


def test_each_slide_with_its_regions_scores_and_predicted_classes(task):
    first, second = Region("a.tif", 0, 0, 128, 128), Region("b.tif", 0, 0, 128, 128)
    with task.ledger() as ledger:
        ledger.record_region_query(0, [RegionQuery(one, "train", None, 1.0, "why") for one in (first, second)])
    record(task, second, "train", ("Stroma", second.polygon))
    pool = pd.DataFrame(
        {
            "id": range(5),
            "slide": ["a.tif"] * 4 + ["c.tif"],
            "class_predicted": ["Blood", "Blood", "Stroma", "Blood", ""],
            "score": [0.5, 0.25, 0.75, float("nan"), float("nan")],
        }
    )
    task.round_dir(0).mkdir(parents=True)
    pool.to_parquet(task.round_dir(0) / "pool.parquet")
    result = RegionScoring(task)({}, None)
    nothing = {"candidates": 0, "score_mean": None, "score_max": None, "predicted": {}}
    assert result == {
        "round": 0,
        "slides": {
            "a.tif": {
                "open": 1,
                "answered": 0,
                "candidates": 4,
                "score_mean": 0.5,
                "score_max": 0.75,
                "predicted": {"Blood": 0.75, "Stroma": 0.25},
            },
            "b.tif": {"open": 0, "answered": 1, **nothing},
            "c.tif": {"open": 0, "answered": 0, **nothing, "candidates": 1},
        },
    }
    assert json.loads((task.folder / "scores.json").read_text()) == result
