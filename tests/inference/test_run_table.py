# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.errors import ConfigError
from tral_monai.inference.areas import AreasWriter
from tral_monai.inference.provenance import ProvenanceWriter
from tral_monai.inference.run_table import RunTable
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_mapper import TissueMapper


def run(slides: list[Path], output: Path) -> SlideEvaluator:
    evaluator = SlideEvaluator(
        SlideListDataset(slides),
        TissueMapper(ColourNet(), tissue_method="paper"),
        output,
        fail_on="never",
        val_handlers=[ProvenanceWriter(), AreasWriter()],
    )
    evaluator.run()
    return evaluator


def table(output: Path) -> list[dict[str, str]]:
    with (output / "areas.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    bad = tmp_path / "b.tif"
    bad.write_bytes(b"no slide")
    good = [write_slide(tmp_path / f"{name}.tif", slide_pixels(("SS", "SM"))) for name in "ac"]
    return [good[0], bad, good[1]]


def test_a_run_over_a_part_of_the_slides_keeps_the_rows_of_the_others(slides: list[Path], tmp_path: Path) -> None:
    run(slides, tmp_path / "maps")
    before = table(tmp_path / "maps")
    assert [(row["slide"], row["status"]) for row in before] == [
        ("a.tif", "mapped"), ("b.tif", "failed"), ("c.tif", "mapped"),
    ]  # fmt: skip
    run(slides[:2], tmp_path / "maps")
    after = table(tmp_path / "maps")
    assert [(row["slide"], row["status"]) for row in after] == [
        ("a.tif", "kept"), ("b.tif", "failed"), ("c.tif", "mapped"),
    ]  # fmt: skip
    assert after[2] == before[2]
    assert after[2]["Stroma_mm2"] == "0.003072"  # 3 tiles of 32 um


def test_a_kill_in_the_resumed_run_loses_no_row(slides: list[Path], tmp_path: Path) -> None:
    run(slides, tmp_path / "maps")
    before = table(tmp_path / "maps")

    class KilledTable(AreasWriter):
        def __call__(self, engine: SlideEvaluator) -> None:
            super().__call__(engine)
            raise KeyboardInterrupt

    again = SlideEvaluator(
        SlideListDataset(slides[1:]),
        TissueMapper(ColourNet(), tissue_method="paper"),
        tmp_path / "maps",
        val_handlers=[ProvenanceWriter(), KilledTable()],
    )
    with pytest.raises(KeyboardInterrupt):
        again.run()
    # The only slide of this run failed and has no classes; the others' columns stay where they were.
    assert table(tmp_path / "maps") == before
    assert list(table(tmp_path / "maps")[0]) == list(before[0])


def test_a_failed_slide_that_was_taken_away_leaves_the_table(slides: list[Path], tmp_path: Path) -> None:
    run(slides, tmp_path / "maps")
    run(slides[::2], tmp_path / "maps")
    assert [row["slide"] for row in table(tmp_path / "maps")] == ["a.tif", "c.tif"]


def test_what_a_kill_left_of_the_table_is_removed(slides: list[Path], tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / ".part-0123456789ab-areas.csv").write_text("slide,sta")
    run(slides[:1], tmp_path / "maps")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.json", "areas.csv"]


@pytest.mark.parametrize("content", [b"slide;status\na.tif;mapped\n", b"\xff\xfe\0", b"slide,status\na.tif\n", b""])
def test_a_table_that_is_none_is_written_anew(
    slides: list[Path], tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "areas.csv").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        run(slides[:1], tmp_path / "maps")
    assert [row["slide"] for row in table(tmp_path / "maps")] == ["a.tif"]
    assert ("written anew" in caplog.text) == bool(content)


def test_a_subclass_gives_the_rows() -> None:
    with pytest.raises(NotImplementedError, match=r"RunTable must implement rows\(\)"):
        RunTable("a.csv").rows([])


@pytest.mark.parametrize("name", ["areas.txt", "a/b.csv", "a\\b.csv"])
def test_the_file_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be the name of a \.csv file without a folder"):
        RunTable(name)
