# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.report.nuclei.features import nearer_to_own, project, read_feature_map


def save(run_dir: Path, round_: int, **changes: Any) -> None:
    arrays = {
        "features": np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [8.0, 1.0, 1.0], [5.0, 0.0, 1.0]]),
        "answer": np.array(["Tum", "Lym", "unknown", "ignored"]),
        "prototypes": np.array([[1.0, 0.0, 1.0], [9.0, 0.0, 1.0]]),
        **changes,
    }
    folder = run_dir / "rounds" / f"round_{round_:03d}"
    folder.mkdir(parents=True)
    np.savez(folder / "roi_features.npz", **arrays)


def test_components_of_points_on_a_line() -> None:
    # Along (3, 4) / 5 at -5, 0 and 5: one component holds all, and prototypes are measured from the same centre.
    x = np.array([[1.0, 1.0], [4.0, 5.0], [7.0, 9.0]])
    points, anchors, explained = project(x, [[4.0, 5.0], [10.0, 13.0]])
    assert points[:, 0].tolist() == pytest.approx([-5, 0, 5])
    assert points[:, 1].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    assert anchors[:, 0].tolist() == pytest.approx([0, 10])
    assert explained == pytest.approx((1.0, 0.0))


def test_one_feature_or_no_spread_is_no_trouble() -> None:
    points, _, explained = project([[1.0], [3.0]], [[1.0], [3.0]])
    assert points.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert explained == (1.0, 0.0)
    points, _, explained = project([[1.0, 2.0]] * 3, [[1.0, 2.0]] * 2)
    assert not points.any()
    assert explained == (0.0, 0.0)


def test_tsne_keeps_two_groups_apart_and_is_seeded() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(0, 0.1, (20, 4)), generator.normal(9, 0.1, (20, 4))])
    anchors = np.array([[0.0] * 4, [9.0] * 4])
    points, stars, explained = project(x, anchors, method="tsne")
    assert explained is None
    centres = np.stack([points[:20].mean(axis=0), points[20:].mean(axis=0)])
    gap = np.linalg.norm(centres[0] - centres[1])
    assert np.linalg.norm(points[:20] - centres[0], axis=1).max() < gap / 2
    assert np.linalg.norm(stars - centres, axis=1).max() < gap / 2
    assert np.array_equal(project(x, anchors, method="tsne")[0], points)


def test_share_on_the_right_side() -> None:
    # Distances to 0 and 10: the known at 1 and 7, the unknown at 8 and 2.
    assert nearer_to_own([[1.0], [7.0], [8.0], [2.0]], [True, True, False, False], [[0.0], [10.0]]) == 0.5


def test_the_last_round_is_read_and_ignored_nuclei_are_left_out(tmp_path: Path) -> None:
    save(tmp_path, 1, features=np.zeros((4, 3)))
    save(tmp_path, 2)
    found, problem = read_feature_map(tmp_path)
    assert problem == ""
    assert found is not None
    assert (found.round, found.total, found.nearer) == (2, 3, 1.0)
    assert found.known.tolist() == [True, True, False]
    assert found.axis_titles[0].startswith("principal component 1 (100%")
    tsne, _ = read_feature_map(tmp_path, method="tsne")
    assert tsne is not None
    assert tsne.axis_titles == ("t-SNE 1", "t-SNE 2")


def test_many_nuclei_are_thinned_out_but_counted(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 3))
    save(tmp_path, 1, features=x, answer=np.array(["Tum"] * 2000))
    found, _ = read_feature_map(tmp_path)
    assert found is not None
    assert (len(found.points), len(found.known), found.total) == (1500, 1500, 2000)


def test_no_file_or_a_bad_one(tmp_path: Path) -> None:
    assert read_feature_map(tmp_path) == (None, "")
    save(tmp_path, 1, answer=np.array(["Tum"]))
    assert read_feature_map(tmp_path)[1] == "round_001/roi_features.npz: 4 features, but 1 answers"
    save(tmp_path, 2, prototypes=np.zeros((2, 7)))
    assert "expected features (m, d) of m >= 2" in read_feature_map(tmp_path)[1]
    save(tmp_path, 3)
    (tmp_path / "rounds" / "round_003" / "roi_features.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert read_feature_map(tmp_path)[1] == "round_003/roi_features.npz cannot be read (BadZipFile)"


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"prototypes \(2, d\), but got \(3, 2\) and \(2, 3\)"):
        project(np.zeros((3, 2)), np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="must be finite"):
        project([[0.0, np.nan], [1.0, 1.0]], np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="must be 'pca' or 'tsne', but is 'umap'"):
        project(np.zeros((3, 2)), np.zeros((2, 2)), method="umap")  # type: ignore[arg-type]
