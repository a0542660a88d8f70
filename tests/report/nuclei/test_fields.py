# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.nuclei.conftest import write_predictions
from tral_monai.report.nuclei.fields import Outlines, box_path, outlines, round_fields
from tral_monai.report.nuclei.run_data import NucleusRunData

MakeRun = Callable[..., NucleusRunData]


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(";base64,")
    assert head == "data:image/jpeg"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_path_of_boxes() -> None:
    assert box_path([[1, 2, 4, 8], [10.25, 0, 12, 3.5]]) == "M1 2h3v6h-3zM10.2 0h1.8v3.5h-1.8z"
    assert box_path(np.zeros((0, 4))) == ""


def test_outlines_by_class_in_a_given_order() -> None:
    boxes = [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]
    found = outlines(boxes, ["unknown", "Tum", "Tum"], ["Tum", "Lym", "unknown"])
    assert found == (
        Outlines("Tum", 2, "M2 2h1v1h-1zM4 4h1v1h-1z"),
        Outlines("unknown", 1, "M0 0h1v1h-1z"),
    )


def test_no_more_than_800_boxes_are_drawn_but_all_are_counted() -> None:
    (found,) = outlines(np.tile([0, 0, 1, 1], (900, 1)), ["Tum"] * 900, ["Tum"])
    assert found.total == 900
    assert found.path.count("M") == 800


def test_pictures_and_answers_of_each_round(make_run: MakeRun, picture: Path) -> None:
    rounds, problems = round_fields(make_run(image=picture))
    assert problems == {}
    assert [(of.round, of.total, of.answered, of.more) for of in rounds] == [(1, 2, 2, 0), (2, 1, 1, 0)]
    card = rounds[0].cards[0]
    assert (card.width_px, card.height_px, card.place_px) == (100, 60, (0, 0))
    assert card.picture is not None
    rgb = pixels(card.picture)
    assert rgb.shape == (60, 100, 3)
    assert rgb[30, 20, 0] > 150  # the red part of the picture begins at the field's left edge
    assert rgb[30, 80, 2] > 150
    assert [(own.name, own.total) for own in card.truth] == [("Tum", 1), ("Lym", 1), ("unknown", 1), ("ignored", 1)]
    assert card.truth[0].path == "M10 8h14v12h-14z"
    assert (card.boxes, card.minutes) == (4, pytest.approx(0.4))
    assert card.count("Tum", "Lym") == 2
    assert card.predictions is None


def test_predictions_of_the_rounds_model_at_the_operating_score(make_run: MakeRun, picture: Path) -> None:
    run = make_run(image=picture)
    write_predictions(run, 1, [(0, 1, 2, 4, 8, "Lym", 0.5), (0, 1, 2, 4, 8, "Tum", 0.49), (1, 0, 0, 2, 2, "Tum", 0.9)])
    rounds, problems = round_fields(run)
    assert problems == {}
    assert rounds[0].cards[0].predictions == (Outlines("Lym", 1, "M1 2h3v6h-3z"),)
    assert rounds[0].cards[0].predicted == 1
    assert rounds[1].cards[0].predictions is None  # round 2 kept none


def test_predictions_that_cannot_be_read(make_run: MakeRun) -> None:
    run = make_run()
    path = write_predictions(run, 1, [])
    path.write_bytes(b"nonsense")
    assert "cannot be read" in round_fields(run)[1]["round_001/query_predictions.parquet"]
    write_predictions(run, 2, []).unlink()
    import pandas as pd

    pd.DataFrame({"sample_id": [2], "score": [1.0]}).to_parquet(
        run.folder / "rounds" / "round_002" / "query_predictions.parquet"
    )
    assert "lacks the columns ['xmin'" in round_fields(run)[1]["round_002/query_predictions.parquet"]


def test_a_large_field_is_embedded_small(make_run: MakeRun, tmp_path: Path) -> None:
    Image.new("RGB", (1600, 960), (0, 0, 255)).save(tmp_path / "large.png")
    run = make_run(image=tmp_path / "large.png")
    table = run.fovs
    assert table is not None
    run.__dict__["fovs"] = table.assign(left_px=0, width_px=1600, height_px=960)
    card = round_fields(run)[0][0].cards[0]
    assert (card.width_px, card.height_px) == (1600, 960)
    assert card.picture is not None
    assert pixels(card.picture).shape == (230, 384, 3)


def test_missing_pictures_are_told_by_file_name(make_run: MakeRun, tmp_path: Path) -> None:
    _, problems = round_fields(make_run("a", image=tmp_path / "gone.png"))
    assert problems == {"gone.png": "its file is no longer where it was"}
    (tmp_path / "broken.png").write_bytes(b"nonsense")
    _, problems = round_fields(make_run("b", image=tmp_path / "broken.png"))
    assert problems == {"broken.png": "it could not be read (SlideReadError)"}
    rounds, problems = round_fields(make_run("c", table=False))
    assert problems == {"": "the run has no fovs.parquet, which says where they lie"}
    assert (rounds[0].cards[0].width_px, rounds[0].cards[0].height_px) == (84, 20)  # as far as the boxes reach


def test_many_rounds_show_fewer_fields_each(make_run: MakeRun) -> None:
    run = make_run(queried={r: [100 + 10 * r + i for i in range(8)] for r in range(1, 12)}, answered=[], table=False)
    rounds, _ = round_fields(run)
    assert [len(of.cards) for of in rounds] == [3] * 11  # 40 in all
    assert rounds[0].more == 5
    assert not rounds[0].cards[0].answered
