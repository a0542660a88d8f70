# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rounds.regions.small_site import ask, box, feature, make_site
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.region_geojson import EXPORT_CLIENT, reserve_for_export, write_regions
from tral_monai.rounds.regions.site import AnnotationSite, TaskSite

FIRST, SECOND = Region("a.b.tif", 0, 0, 256, 256), Region("a.b.tif", 256, 0, 256, 256)
THIRD = Region("c.tif", 0, 512, 256, 256)


@pytest.fixture
def site(tmp_path: Path) -> AnnotationSite:
    site = make_site(tmp_path, "a.b.tif", "c.tif", val_fraction="0")
    ask(site, "tissue", FIRST, SECOND, THIRD)
    return site


def export(task: TaskSite, folder: Path, *, seconds: float = 60.0) -> list[Path]:
    with task.ledger() as ledger:
        return write_regions(task, reserve_for_export(task, ledger, 0, seconds=seconds), folder)


def as_qupath_saves(path: Path, *drawn: dict[str, Any], **changes: Any) -> str:
    """The export as QuPath exports it again: with an id, and with what was drawn; the first rectangle changed."""
    content = json.loads(path.read_text())
    for number, one in enumerate(content["features"]):
        one["id"] = f"b2f1c1a4-0000-4000-8000-00000000000{number}"
        ring = one["geometry"]["coordinates"][0]
        assert {tuple(point) for point in ring} <= {
            (float(x), float(y)) for x in range(1025) for y in (0, 256, 512, 768)
        }
    content["features"][0]["properties"].update(changes)
    return json.dumps({"type": "FeatureCollection", "features": [*content["features"], *drawn]})


def test_each_slide_has_a_file_of_locked_rectangles_with_reasons(site: AnnotationSite, tmp_path: Path) -> None:
    files = export(site.tasks["tissue"], tmp_path / "out")
    assert [path.name for path in files] == ["a.b.geojson", "c.geojson"]
    first, second = json.loads(files[0].read_text())["features"]
    assert sorted(first["geometry"]["coordinates"][0][:4]) == [[0.0, 0.0], [0.0, 256.0], [256.0, 0.0], [256.0, 256.0]]
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "round 0, no. 1",
        "classification": {"name": "Region", "color": [0, 0, 180]},
        "isLocked": True,
        "metadata": {"tral_monai": "open", "reason": "because", "ANNOTATION_DESCRIPTION": "because"},
    }
    assert second["properties"]["name"] == "round 0, no. 2"


def test_exported_regions_are_kept_from_servers(site: AnnotationSite, tmp_path: Path) -> None:
    task = site.tasks["tissue"]
    with task.ledger() as ledger:
        theirs = ledger.reserve_next(0, "anna", seconds=60)
        assert theirs is not None
        assert theirs.region == FIRST
    files = export(task, tmp_path / "out")
    assert [len(json.loads(path.read_text())["features"]) for path in files] == [1, 1]
    with task.ledger() as ledger:
        assert ledger.reserve_next(0, "anna", seconds=60) is None
        held = {asked.region: asked for asked in ledger.asked(0)}
    assert held[SECOND].reserved_by == EXPORT_CLIENT
    assert held[SECOND].reserved_until == pytest.approx(time.time() + 60, abs=20)
    assert len(export(task, tmp_path / "again")) == 2  # what it holds already is written again


def test_what_was_drawn_in_an_export_comes_back_and_the_rest_stays_open(site: AnnotationSite, tmp_path: Path) -> None:
    path = export(site.tasks["tissue"], tmp_path / "out")[0]
    drawn = feature("Tumor", box(10, 10, 128, 128))
    (site.labels_dir / "a.b.geojson").write_text(as_qupath_saves(path, drawn))
    report = sync_labels(site)
    assert (report["tissue"].regions_answered, report["tissue"].set_aside) == (1, {})
    assert report["nuclei"].regions_answered == 0
    with site.tasks["tissue"].ledger() as ledger:
        assert {asked.region: asked.answered for asked in ledger.asked(0)} == {FIRST: True, SECOND: False, THIRD: False}
        (answer,) = ledger.answers()
    assert [(name, geometry.bounds) for name, geometry in answer.shapes] == [("Tumor", (10, 10, 138, 138))]


@pytest.mark.parametrize("changes", [{"classification": {"name": "Empty"}}, {"name": "done"}])
def test_a_rectangle_that_holds_nothing_counts_once_it_is_said(
    site: AnnotationSite, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = export(site.tasks["tissue"], tmp_path / "out")[0]
    (site.labels_dir / "a.b.geojson").write_text(path.read_text())
    assert sync_labels(site)["tissue"].regions_answered == 0
    (site.labels_dir / "a.b.geojson").write_text(as_qupath_saves(path, **changes))
    assert sync_labels(site)["tissue"].regions_answered == 1
    with site.tasks["tissue"].ledger() as ledger:
        (answer,) = ledger.answers()
    assert (answer.region, answer.shapes) == (FIRST, ())


def test_what_somebody_drew_is_not_written_over(site: AnnotationSite, tmp_path: Path) -> None:
    task = site.tasks["tissue"]
    path = export(task, tmp_path / "out")[0]
    export(task, tmp_path / "out")  # untouched: written again
    path.write_text(as_qupath_saves(path, feature("Tumor", box(0, 0, 9, 9))))
    drawn = path.read_text()
    with pytest.raises(ConfigError, match=r"a\.b\.geojson holds what somebody drew, and is not written over"):
        export(task, tmp_path / "out")
    assert path.read_text() == drawn


def test_regions_of_a_slide_that_is_gone_are_neither_written_nor_held(site: AnnotationSite, tmp_path: Path) -> None:
    (tmp_path / "c.tif").unlink()
    task = site.tasks["tissue"]
    assert [path.name for path in export(task, tmp_path / "out")] == ["a.b.geojson"]
    with task.ledger() as ledger:
        assert ledger.asked(0)[2].reserved_by is None


def test_slides_that_differ_by_suffix_alone_have_files_of_their_own(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.tif", "a.tiff", val_fraction="0")
    ask(site, "tissue", Region("a.tif", 0, 0, 256, 256), Region("a.tiff", 0, 0, 256, 256))
    files = export(site.tasks["tissue"], tmp_path / "out")
    assert [path.name for path in files] == ["a.tif.geojson", "a.tiff.geojson"]
    for path in files:
        (site.labels_dir / path.name).write_text(as_qupath_saves(path, feature("Tumor", box(0, 0, 99, 99))))
    assert sync_labels(site)["tissue"].regions_answered == 2
