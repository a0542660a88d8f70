# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rounds.regions.small_site import ask, box, feature, geojson, make_site
from tral_monai.__main__ import main
from tral_monai.rounds.regions.identity import site_identity
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.saved_settings import save_settings
from tral_monai.rounds.regions.site import AnnotationSite

CONF = ["--conf", "tissue_classes", "Tumor, Stroma", "nuclei_classes", "Lymphocyte, Epithelial", "val_fraction", "0"]
FIRST, SECOND = Region("a.tif", 0, 0, 256, 256), Region("a.tif", 256, 0, 256, 256)


@pytest.fixture
def site(tmp_path: Path) -> AnnotationSite:
    site = make_site(tmp_path, "a.tif", "b.tif", val_fraction="0")
    ask(site, "tissue", FIRST, SECOND)
    return site


def regions(site: AnnotationSite, *arguments: str) -> int:
    return main(["regions", str(site.studies), "--task", "tissue", *CONF, *arguments])


def test_the_current_rounds_regions_are_listed_and_nothing_changes(
    site: AnnotationSite, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.labels_dir / "a.geojson").write_text(geojson(feature("Tumor", box(0, 0, 99, 99))))
    before = sorted(site.studies.rglob("*"))
    assert regions(site) == 0
    output = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in output.splitlines()]
    assert ["1", "a.tif", "0,", "0,", "256,", "256", "-", "0.500", "open"] in rows
    assert "  1: because" in output
    assert sorted(site.studies.rglob("*")) == before
    with site.tasks["tissue"].ledger() as ledger:
        assert {(asked.reserved_by, asked.answered) for asked in ledger.asked()} == {(None, False)}


def test_the_current_rounds_regions_are_written_and_reserved(
    site: AnnotationSite, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site.studies / "out"
    assert regions(site, "--output-dir", str(folder)) == 0
    assert len(json.loads((folder / "a.geojson").read_text())["features"]) == 2
    output = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in output.splitlines()]
    assert ["1", "a.tif", "0,", "0,", "256,", "256", "-", "0.500", "written"] in rows
    assert "  1: because" in output
    assert f"2 regions, in {folder}:\n  a.geojson\n" in output
    assert f"none of the open ones for 24 hours. Once annotated, put the files into {site.labels_dir}" in output
    with site.tasks["tissue"].ledger() as ledger:
        assert [asked.reserved_by for asked in ledger.asked()] == ["export", "export"]


def test_without_settings_the_last_servers_count(site: AnnotationSite, capsys: pytest.CaptureFixture[str]) -> None:
    with site.tasks["tissue"].ledger() as ledger:
        ledger.begin(site_identity(site.tasks["tissue"]))
    command = ["regions", str(site.studies), "--task", "tissue", "--output-dir", str(site.studies / "out")]
    assert main(command) == 1
    assert "were begun with other settings (classes: ['Tumor', 'Stroma'], now [" in capsys.readouterr().err
    save_settings(site)
    assert main(command) == 0


def test_the_task_may_be_left_out_where_there_is_one(site: AnnotationSite, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regions", str(site.studies), *CONF]) == 1
    expected = "error: this site offers tissue and nuclei; say which one is meant: --task tissue or --task nuclei"
    assert expected in " ".join(capsys.readouterr().err.split())
    assert main(["regions", str(site.studies), *CONF, "--conf", "tasks", "tissue"]) == 0
    assert "tissue, round 0" in capsys.readouterr().out


def test_labels_that_were_dropped_in_count_first(site: AnnotationSite, capsys: pytest.CaptureFixture[str]) -> None:
    (site.labels_dir / "a.geojson").write_text(geojson(feature("Tumor", box(0, 0, 99, 99))))
    with site.tasks["tissue"].ledger() as ledger:
        reserved = ledger.reserve_next(0, "anna", seconds=600)
        assert reserved is not None
    assert regions(site, "--output-dir", str(site.studies / "out")) == 0
    output = capsys.readouterr().out
    assert "tissue: 1 region answered" in output
    rows = [line.replace("│", " ").split() for line in output.splitlines()]
    assert ["1", "a.tif", "0,", "0,", "256,", "256", "-", "0.500", "answered"] in rows
    assert len(json.loads((site.studies / "out" / "a.geojson").read_text())["features"]) == 1
    assert regions(site, "--all", "--output-dir", str(site.studies / "all")) == 0
    assert len(json.loads((site.studies / "all" / "a.geojson").read_text())["features"]) == 2


def test_what_another_holds_is_said_and_left_to_him(site: AnnotationSite, capsys: pytest.CaptureFixture[str]) -> None:
    with site.tasks["tissue"].ledger() as ledger:
        ledger.reserve_next(0, "anna", seconds=600)
        ledger.reserve_next(0, "[bold]", seconds=600)
    assert regions(site, "--output-dir", str(site.studies / "out")) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "anna" in output
    assert "[bold]" in output
    assert "Nothing of round 0 is open, so nothing was written" in output
    assert not (site.studies / "out" / "a.geojson").exists()


def test_settings_come_from_a_file_too(
    site: AnnotationSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("tissue_classes: [Tumor, Stroma]\nnuclei_classes: [Lymphocyte]\noutput_dir: elsewhere\n")
    assert main(["regions", str(site.studies), "--task", "tissue", "--config", str(config)]) == 1
    assert "no regions were chosen for tissue yet" in capsys.readouterr().err  # there, no query was made
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--round", "3"], "no regions were chosen for round 3 of tissue (rounds with regions: 0)"),
        (["--reserve-hours", "0"], "--reserve-hours must lie between 0 and 8760, but is 0"),
        (["--conf", "mpp"], "--conf takes pairs of a key and a value, but 'mpp' is left over"),
        (["--conf", "tasks", "nuclei"], "there is no task 'tissue' here; this server offers nuclei"),
    ],
)
def test_wrong_use_is_explained(
    site: AnnotationSite, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert regions(site, *arguments) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regions", str(tmp_path / "no"), "--task", "tissue"]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
