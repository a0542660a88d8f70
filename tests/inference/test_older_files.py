# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.inference.class_map_png import ClassMapWriter
from tral_monai.inference.geojson_writer import GeoJSONWriter
from tral_monai.inference.older_files import remove_older_files
from tral_monai.inference.probability_zarr import ProbabilityZarrWriter
from tral_monai.inference.provenance import ProvenanceWriter
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_mapper import TissueMapper


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_slide_done_again_keeps_no_file_of_the_older_model(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for stem in ("a", "b"):
        write_slide(slides / f"{stem}.tif", slide_pixels(("SM", "BS")))
    maps = tmp_path / "maps"

    def run(scale: float, pattern: str, *more: Any) -> set[str]:
        mapper = TissueMapper(ColourNet(scale), tissue_method="paper", keep_probabilities=True)
        handlers = [ClassMapWriter(), *more, ProvenanceWriter()]
        SlideEvaluator(SlideListDataset(str(slides / pattern)), mapper, maps, val_handlers=handlers).run()
        return names(maps)

    of_a, of_b = (
        {f"{stem}{end}" for end in ("_classes.png", ".geojson", "_probabilities.ome.zarr", ".json")}
        for stem in ("a", "b")
    )
    assert run(0.05, "*", GeoJSONWriter(), ProbabilityZarrWriter()) == of_a | of_b
    (maps / "a_notes.txt").write_text("mine")
    assert run(0.06, "a.tif") == {"a_classes.png", "a.json", "a_notes.txt"} | of_b
    assert run(0.05, "b.tif") == {"a_classes.png", "a.json", "a_notes.txt", "b_classes.png", "b.json"}


@pytest.mark.parametrize("files", [["a.tif", "../a_x", "b.json", "sub/a_x", "ab.json", "a", 7], "a.tif", None])
def test_only_names_of_the_slide_in_a_record_of_a_run_count(tmp_path: Path, files: Any) -> None:
    folder = tmp_path / "maps"
    (folder / "sub").mkdir(parents=True)
    kept = [tmp_path / "a_x", folder / "b.json", folder / "sub" / "a_x", folder / "ab.json", folder / "a"]
    for path in (*kept, folder / "a.json"):
        path.write_text("")
    (folder / "a.tif").write_text("the slide")
    remove_older_files(folder, "a", {"files": files})  # not of a run: somebody's own a.json
    assert (folder / "a.tif").exists()
    remove_older_files(folder, "a", {"run_key": "0", "files": ["a_gone.png", *(files or [])[1:]]})
    assert all(path.exists() for path in kept)
    assert not (folder / "a.json").exists()


def test_a_kill_in_between_leaves_the_record_that_lists_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a_1.png", "a_2.png", "a.json"):
        (tmp_path / name).write_text("")
    removed: list[str] = []
    unlink = Path.unlink

    def note(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", note)
    remove_older_files(tmp_path, "a", json.loads('{"run_key": "0", "files": ["a_1.png", "a_2.png"]}'))
    assert removed == ["a_1.png", "a_2.png", "a.json"]
