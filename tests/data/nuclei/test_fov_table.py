# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tral_monai.data.nuclei.cut import cut_fields
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS, check_columns, fov_size_px, read_fovs, write_fovs
from tral_monai.errors import CohortError


@pytest.fixture
def table(make_field):
    return cut_fields([make_field(nuclei=[("A", 5, 5, 25, 25), ("B", 60, 5, 80, 20)])], fov_mpp=0.25, fov_px=50)


def test_a_round_trip(table, tmp_path):
    write_fovs(table.assign(part="train"), tmp_path / "t.parquet")
    found = read_fovs(tmp_path / "t.parquet")
    assert list(found.columns) == [*FOV_COLUMNS, "part"]
    assert found["classes"].tolist() == [("A",), ("B",), (), ()]
    assert [boxes.tolist() for boxes in found["boxes_px"]] == [[[5, 5, 25, 25]], [[10, 5, 30, 20]], [], []]
    assert all(boxes.dtype == np.float32 and boxes.shape[1] == 4 for boxes in found["boxes_px"])
    pd.testing.assert_frame_equal(
        found[list(FOV_COLUMNS)].drop(columns=["boxes_px", "classes"]), table.drop(columns=["boxes_px", "classes"])
    )


@pytest.mark.parametrize("rows", [[], [0], [0, 1]])
def test_tables_with_alike_or_without_rows(table, tmp_path, rows):
    write_fovs(table.iloc[rows], tmp_path / "t.parquet")
    found = read_fovs(tmp_path / "t.parquet")
    assert found["classes"].tolist() == table["classes"].iloc[rows].tolist()
    assert all(boxes.shape == (1, 4) for boxes in found["boxes_px"])


def test_sizes():
    table = pd.DataFrame({"width_px": [100, 99, 1], "height_px": [50, 3, 1], "mpp": 0.25, "fov_mpp": [0.25, 0.5, 4.0]})
    assert fov_size_px(table).tolist() == [[100, 50], [50, 2], [1, 1]]


def test_tables_that_cannot_be_read(table, tmp_path):
    with pytest.raises(CohortError, match=r"there is no table of fields of view 'x.parquet'; check the path"):
        read_fovs(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_text("text")
    with pytest.raises(CohortError, match=r"x.parquet is not a parquet table of fields of view"):
        read_fovs(tmp_path / "x.parquet")
    pd.DataFrame({"id": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(CohortError, match=r"x.parquet lacks the columns \['field', 'slide'"):
        read_fovs(tmp_path / "x.parquet")
    with pytest.raises(CohortError, match=r"the pool lacks the columns \['part'\]; a table of fields of view has"):
        check_columns(table, "the pool", ["id", "part"])
