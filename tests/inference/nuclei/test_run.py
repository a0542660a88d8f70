# SPDX-License-Identifier: Apache-2.0
"""A real detector, trained for seconds, from pictures to the files that QuPath, a spreadsheet and a person open."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from tests.inference.colour_slides import write_slide
from tests.inference.nuclei.disc_fields import CLASSES, COLOURS, disc_boxes, draw_discs, scattered_discs
from tral_monai.annotations.files import read_annotations
from tral_monai.errors import CheckpointError, ConfigError, SlideError
from tral_monai.inference.nuclei.run import NucleusInference
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

DISCS = scattered_discs((420, 380), 80, seed=77)
SUFFIXES = (".csv", ".geojson", ".json", "_overlay.png")


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    folder = tmp_path / "fields of P. Smith"  # a folder's name must not get into any result
    folder.mkdir()
    Image.fromarray(draw_discs((420, 380), DISCS)).save(folder / "one.png")
    Image.fromarray(draw_discs((200, 100), [])).save(folder / "two.jpg")
    return folder


def run(images: Any, output: Path, network: OpenSetRCNN, **settings: Any) -> NucleusInference:
    return NucleusInference(
        images, output, **{"network": network, "mpp": 0.25, "progress": False, "device": "cpu", **settings}
    )


def iou(boxes: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a, b = boxes[:, None], others[None]
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(axis=2)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(axis=2) for box in (a, b))
    return np.asarray(shared / (area_a + area_b - shared))


def test_from_fields_to_files(fields: Path, tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN) -> None:
    output = tmp_path / "nuclei"
    results = run(str(fields), output, detector, auxiliary_network=auxiliary, overlap_px=40).run()
    assert [(result.name, result.status) for result in results] == [("one.png", "mapped"), ("two.jpg", "mapped")]
    written = sorted(path.name for path in output.iterdir())
    assert written == sorted(["counts.csv", *(stem + suffix for stem in ("one", "two") for suffix in SUFFIXES)])

    nuclei = read_annotations(output / "one.geojson")
    assert {nucleus.object_type for nucleus in nuclei} == {"detection"}
    assert {(nucleus.class_name, nucleus.color) for nucleus in nuclei} == set(COLOURS.items())
    overlaps = iou(
        np.array([nucleus.geometry.bounds for nucleus in nuclei]), np.array([box[:4] for box in disc_boxes(DISCS)])
    )
    # Nearly every disc is found, and hardly any twice, by a detector of which not more can be asked.
    assert (overlaps.max(axis=0) > 0.5).mean() > 0.85
    assert ((overlaps > 0.5).sum(axis=0) <= 1).mean() > 0.9
    assert abs(len(nuclei) - len(DISCS)) <= 15

    measured = nuclei[0].properties["measurements"]
    assert list(measured) == ["Score", "Uncertainty", "Distance to known", "Distance to unknown"]
    assert 0.5 <= measured["Score"] <= 1
    assert 0 < measured["Uncertainty"] <= 1

    with (output / "one.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [nucleus.class_name for nucleus in nuclei]
    assert json.loads((output / "two.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
    with (output / "counts.csv").open(newline="", encoding="utf-8") as file:
        one, two = csv.DictReader(file)
    assert one["image"] == "one.png"
    assert int(one["tumour"]) + int(one["lymphocyte"]) == len(nuclei)
    assert float(one["tumour_per_mm2"]) == pytest.approx(int(one["tumour"]) / (420 * 380 * 0.0625e-6), rel=1e-3)
    assert two["nuclei"] == "0"

    record = json.loads((output / "one.json").read_text())
    assert record["settings"]["classes"] == list(CLASSES)
    assert len(record["settings"]["auxiliary"]["weights_sha256"]) == 64
    assert record["slide"]["mpp_source"] == "given"
    assert not any("Smith" in path.read_text(errors="ignore") for path in output.iterdir() if path.suffix != ".png")


def test_the_same_nuclei_by_any_batch_and_after_a_restart(fields: Path, tmp_path: Path, detector: OpenSetRCNN) -> None:
    texts = []
    for batch_size in (1, 5):
        output = tmp_path / str(batch_size)
        run(fields / "one.png", output, detector, batch_size=batch_size).run()
        boxes = [annotation.geometry.bounds for annotation in read_annotations(output / "one.geojson")]
        texts.append(np.array(boxes))
    assert texts[0] == pytest.approx(texts[1], abs=0.05)
    (again,) = run(fields / "one.png", tmp_path / "1", detector, batch_size=1).run()
    assert again.status == "kept"
    (stricter,) = run(fields / "one.png", tmp_path / "1", detector, min_score=0.9).run()
    assert stricter.status == "mapped"


def test_known_only_leaves_out_what_lies_nearer_to_the_unknown(
    fields: Path, tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    for only in (False, True):
        run(fields / "one.png", tmp_path / str(only), detector, auxiliary_network=auxiliary, known_only=only).run()
    everything, known = (pd.read_csv(tmp_path / str(only) / "one.csv") for only in (False, True))
    nearer = everything[everything["distance_known"] <= everything["distance_unknown"]]
    assert 0 < len(nearer) < len(everything)
    assert known.drop(columns="nucleus").to_numpy().tolist() == nearer.drop(columns="nucleus").to_numpy().tolist()
    # Red discs shaped the known prototype and blue ones the unknown.
    share = known["class"].value_counts() / everything["class"].value_counts()
    assert share["tumour"] > share.fillna(0)["lymphocyte"] + 0.25


def test_checkpoints_are_all_that_is_needed(
    fields: Path, tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    save_checkpoint(tmp_path / "model.pt", detector)
    save_checkpoint(tmp_path / "auxiliary.pt", auxiliary)
    output = tmp_path / "nuclei"
    NucleusInference(
        f"{fields}/one.*",
        output,
        checkpoint=tmp_path / "model.pt",
        auxiliary_checkpoint=tmp_path / "auxiliary.pt",
        mpp=0.25,
        packed=True,
        progress=False,
        colours={"tumour": (1, 2, 3)},
    ).run()
    nuclei = read_annotations(output / "one.geojson.gz")
    assert {(nucleus.class_name, nucleus.color) for nucleus in nuclei} == {
        ("tumour", (1, 2, 3)),
        ("lymphocyte", COLOURS["lymphocyte"]),
    }
    record = json.loads((output / "one.json").read_text())
    assert record["model"]["checkpoint"]["name"] == "model.pt"
    assert record["model"]["contract"]["settings"]["fov_px"] == 128


def test_a_slide_takes_the_same_way(tmp_path: Path, detector: OpenSetRCNN) -> None:
    pixels = np.full((4200, 1500, 3), 250, dtype=np.uint8)
    pixels[1000:1380, 500:920] = draw_discs((420, 380), DISCS)
    slide = write_slide(tmp_path / "slide.tif", pixels)
    (result,) = run(slide, tmp_path / "nuclei", detector, mpp=None, overlap_px=40).run()
    found = result.record["result"]
    assert found["analysed"] == "tissue"
    assert found["tiles"] < 60  # of 17 x 48
    boxes = np.array([nucleus.geometry.bounds for nucleus in read_annotations(tmp_path / "nuclei" / "slide.geojson")])
    truth = np.array([box[:4] for box in disc_boxes(DISCS)]) + np.array([500, 1000, 500, 1000])
    assert (iou(boxes, truth).max(axis=0) > 0.5).mean() > 0.85


def test_bad_images_are_told_and_skipped(fields: Path, tmp_path: Path, detector: OpenSetRCNN) -> None:
    (fields / "broken.png").write_bytes(b"no picture")
    (fields / "empty.png").touch()
    results = {result.stem: result for result in run(str(fields), tmp_path / "nuclei", detector).run()}
    assert results["one"].status == results["two"].status == "mapped"
    assert results["broken"].status == results["empty"].status == "failed"
    assert "broken.png: neither a slide nor an image that can be read" in (results["broken"].error or "")
    assert "empty.png: the file is empty" in (results["empty"].error or "")
    with (tmp_path / "nuclei" / "counts.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "failed", "mapped", "mapped"]


def test_a_field_without_mpp_names_the_remedy(fields: Path, tmp_path: Path, detector: OpenSetRCNN) -> None:
    with pytest.raises(SlideError, match=r"one\.png: the file records no micrometres per pixel; .* --mpp 0\.25"):
        run(fields / "one.png", tmp_path / "nuclei", detector, mpp=None).run()


def test_what_is_needed_is_checked_first(
    fields: Path, tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    with pytest.raises(ConfigError, match="either a checkpoint or a network"):
        NucleusInference(fields, tmp_path / "nuclei")
    with pytest.raises(ConfigError, match="either an auxiliary_checkpoint or an auxiliary_network"):
        run(fields, tmp_path / "nuclei", detector, auxiliary_network=auxiliary, auxiliary_checkpoint="a.pt")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        NucleusInference(fields, tmp_path / "nuclei", checkpoint=tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="no slide matches"):
        run(f"{fields}/*.bmp", tmp_path / "nuclei", detector)
    with pytest.raises(ConfigError, match="of the role 'target', but this one has 'prototype'"):
        run(fields, tmp_path / "nuclei", auxiliary)


CONFIG = """
imports: [$import os]
images: fields
checkpoint: model.pt
auxiliary_checkpoint: null
output_dir: nuclei
mpp: null
device: cpu
network_def:
  _target_: tral_monai.inference.nuclei.load_detector.load_detector
  path: '@checkpoint'
  map_location: '@device'
auxiliary_network_def:
  _target_: tral_monai.inference.nuclei.load_detector.load_auxiliary
  path: '@auxiliary_checkpoint'
  map_location: '@device'
dataset: {_target_: tral_monai.inference.slide_list.SlideListDataset, data: '@images', fields: true}
inferer: {_target_: tral_monai.inference.nuclei.detection_inferer.DetectionInferer}
mapper:
  _target_: tral_monai.inference.nuclei.nucleus_mapper.NucleusMapper
  network: '@network_def'
  auxiliary: '@auxiliary_network_def'
  inferer: '@inferer'
  device: '@device'
  overlap_px: 40
handlers:
- {_target_: tral_monai.inference.nuclei.nuclei_geojson.NucleiGeoJSONWriter, colours: null, packed: false}
- {_target_: tral_monai.inference.nuclei.nuclei_csv.NucleiCSVWriter}
- {_target_: tral_monai.inference.nuclei.nuclei_overlay.NucleiOverlayWriter, colours: null}
- {_target_: tral_monai.inference.provenance.ProvenanceWriter, checkpoint: '@checkpoint'}
- {_target_: tral_monai.inference.nuclei.counts.CountsWriter}
- {_target_: tral_monai.inference.progress_handler.ProgressHandler}
evaluator:
  _target_: tral_monai.inference.slide_evaluator.SlideEvaluator
  val_data_loader: '@dataset'
  mapper: '@mapper'
  output_dir: '@output_dir'
  mpp: '@mpp'
  val_handlers: '@handlers'
"""


def test_a_configuration_puts_it_together(
    fields: Path, tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    save_checkpoint(tmp_path / "model.pt", detector)
    save_checkpoint(tmp_path / "auxiliary.pt", auxiliary)
    for chosen in (None, str(tmp_path / "auxiliary.pt")):
        parser = ConfigParser(yaml.safe_load(CONFIG))
        parser.update(
            {
                "images": f"{fields}/*.png",
                "checkpoint": str(tmp_path / "model.pt"),
                "auxiliary_checkpoint": chosen,
                "output_dir": str(tmp_path / "nuclei"),
                "mpp": 0.25,
            }
        )
        evaluator = parser.get_parsed_content("evaluator")
        evaluator.run()
        assert [result.status for result in evaluator.results] == ["mapped"]  # also where only the auxiliary is new
        names = set(read_annotations(tmp_path / "nuclei" / "one.geojson")[0].properties["measurements"])
        assert ("Distance to known" in names) == (chosen is not None)
