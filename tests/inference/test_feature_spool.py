# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tral_monai.atomic_file import remove_half_written
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.feature_spool import FeatureSpool
from tral_monai.inference.mapped_tiles import MappedTiles


def tiles(*cells: tuple[int, int], scale: float = 1.0) -> MappedTiles:
    """Tiles whose numbers follow from their cell: centre (column, row), features row * 10 + column and 0.5."""
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return MappedTiles(
        rows,
        columns,
        np.stack([columns, rows], axis=1),
        np.stack([rows, columns, rows], axis=1).astype(np.float32),
        np.stack([rows * 10 + columns, np.full(len(rows), 0.5)], axis=1).astype(np.float32) * np.float32(scale),
    )


@pytest.mark.parametrize("count", [1, 2, 100])
def test_tiles_come_back_as_they_lie_on_the_slide(tmp_path: Path, count: int) -> None:
    spool = FeatureSpool(tmp_path / "s_features.h5", "float16")
    assert (len(spool), spool.widths) == (0, (0, 0))
    for block in (tiles((0, 2), (0, 3), (1, 2)), tiles((1, 1), (0, 0), (0, 1)), tiles()):
        spool.append(block)
    assert (len(spool), spool.widths) == (6, (2, 3))
    parts = list(spool.in_order(count))
    assert {len(part) for part in parts} == {min(count, 6)}
    records = np.concatenate(parts)
    assert records["features"].dtype == np.float16
    assert records["features"].tolist() == [[0, 0.5], [1, 0.5], [2, 0.5], [3, 0.5], [11, 0.5], [12, 0.5]]
    assert records["centre_level0"].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [1, 1], [2, 1]]
    assert records["probabilities"][4].tolist() == [1, 1, 1]
    spool.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_leaves_is_known(tmp_path: Path) -> None:
    FeatureSpool(tmp_path / "s_features.h5", "float32").append(tiles((0, 0)))
    assert len(list(tmp_path.iterdir())) == 1
    assert not (tmp_path / "s_features.h5").exists()
    remove_half_written(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_by_others_is_told(tmp_path: Path) -> None:
    spool = FeatureSpool(tmp_path / "s_features.h5", "float32")
    spool.append(tiles((0, 0), (0, 1)))
    list(spool.in_order(5))
    (file,) = tmp_path.iterdir()
    with file.open("rb+") as stream:
        stream.truncate(10)
    with pytest.raises(OSError, match="was cut off while it was in use"):
        list(spool.in_order(5))


def test_features_are_checked(tmp_path: Path) -> None:
    spool = FeatureSpool(tmp_path / "s_features.h5", "float16")
    with pytest.raises(ConfigError, match=r"the features reach 7e\+04, which float16 cannot hold; use float32"):
        spool.append(tiles((7, 0), scale=1000))
    with pytest.raises(CheckpointError, match="the network's features are not finite"):
        spool.append(tiles((7, 0), scale=np.nan))
    block = tiles((0, 0))
    with pytest.raises(ConfigError, match="the network gives no features"):
        spool.append(MappedTiles(block.rows, block.columns, block.centres_level0, block.probabilities))
    assert len(spool) == 0
