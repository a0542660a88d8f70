# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import monai
import pytest
import torch

from tests.inference.colour_slides import ColourNet, break_tile, slide_pixels, write_slide
from tral_monai import __version__
from tral_monai.errors import ConfigError
from tral_monai.inference.class_map_png import ClassMapWriter
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.provenance import ProvenanceWriter, read_record
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_mapper import TissueMapper


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """4 x 6 tiles of stroma, of which the four of the first file tile cannot be decoded."""
    folder = tmp_path_factory.mktemp("run")
    path = write_slide(folder / "s.tif", slide_pixels(("SSSSSS",) * 4))
    break_tile(path, level=0, tile=0)
    (folder / "model.pt").write_bytes(b"weights")
    mapper = TissueMapper(ColourNet(), tissue_method="paper", batch_size=7)
    writer = ProvenanceWriter(checkpoint=folder / "model.pt", extra={"study": "colon"})
    SlideEvaluator(
        SlideListDataset(path), mapper, folder / "maps", backend="tiff", val_handlers=[ClassMapWriter(), writer]
    ).run()
    content: dict[str, Any] = json.loads((folder / "maps" / "s.json").read_text())
    assert read_record(folder / "maps", "s") == content
    return content


def test_the_slide(record: dict[str, Any]) -> None:
    slide = dict(record["slide"])
    assert len(slide.pop("sha256")) == 64
    assert slide.pop("stamp")
    assert slide == {
        "name": "s.tif",
        "width_level0": 768,
        "height_level0": 512,
        "mpp_xy": [pytest.approx(0.25), pytest.approx(0.25)],
        "mpp_source": "file",
        "backend": "tiff",
    }


def test_the_model_and_how_it_was_run(record: dict[str, Any]) -> None:
    assert record["model"] == {
        "class": "ColourNet",
        "weights_sha256": weights_sha256(ColourNet()),
        "checkpoint": {"name": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()},
        "contract": None,
    }
    assert record["settings"]["undefined_below"] == 0.6
    assert record["settings"]["damaged_at_least"] == 0.9
    assert record["settings"]["classes"] == ["Stroma", "Muscle", "Blood", "Damaged"]
    assert record["runtime"]["batch_size"] == 7


def test_the_result(record: dict[str, Any]) -> None:
    result = record["result"]
    assert result["tiles"] == {
        "Background": 0, "Stroma": 20, "Muscle": 0, "Blood": 0, "Damaged": 0, "Undefined": 0, "Not analysed": 4,
    }  # fmt: skip
    assert result["areas_mm2"]["Stroma"] == pytest.approx(20 * 0.032**2)
    assert result["tissue_mm2"] == pytest.approx(24 * 0.032**2)
    assert result["not_analysed"]["tiles"] == 4
    assert result["not_analysed"]["centres_level0"] == [[64, 64], [192, 64], [64, 192], [192, 192]]
    assert "s.tif" in result["not_analysed"]["messages"][0]
    assert record["files"] == ["s_classes.png"]
    assert record["seconds"] > 0


def test_the_software_and_what_was_added(record: dict[str, Any]) -> None:
    assert record["software"]["versions"]["tral_monai"] == __version__
    assert record["software"]["versions"]["monai"] == monai.__version__
    assert record["software"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["study"] == "colon"


@pytest.mark.parametrize("content", ["", "[1]", '{"half'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    assert read_record(tmp_path, "s") == {}
    assert read_record(tmp_path, "other") == {}


def test_extra_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"must not use the record's own keys, but has \['model'\]"):
        ProvenanceWriter(extra={"model": 1})
    with pytest.raises(ConfigError, match="plain data that JSON can hold"):
        ProvenanceWriter(extra={"x": object()})
