# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.inference.export.small_models import NUCLEI_BUNDLE, small_detector
from tral_monai.errors import ConfigError
from tral_monai.inference.export.bundle_folder import export_bundle
from tral_monai.inference.export.nuclei import NucleiExport
from tral_monai.inference.export.one_tile_detector import OneTileDetector
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.detect import detect

VARIANTS = {
    "smallest": {},
    "enlarged": {"upsample": 1.5, "fov_px": 100},
    "softmax": {"head": "softmax"},
    "box of each class": {"class_agnostic_regression": False},
    "one class wins": {"class_agnostic_nms": True},
    "few": {"max_detections": 3},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_one_tile_is_what_detect_says_of_it(settings):
    network = small_detector(**settings)
    exported = NucleiExport(network)
    tiles = exported.generated_tiles(3, seed=1)
    found = detect(network, list(torch.from_numpy(tiles)), want={"evidence"}).detections
    assert len(found.scores)
    with torch.no_grad():
        parts = [exported.module(torch.from_numpy(tile)) for tile in tiles]
    assert [len(part[0]) for part in parts] == found.counts.tolist()
    columns = (found.boxes_px, found.labels, found.scores, found.probabilities, found.evidence)
    for ours, theirs in zip((torch.cat(column) for column in zip(*parts, strict=True)), columns, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("nuclei")
    source = save_checkpoint(root / "model.pt", small_detector())
    return export_bundle(NUCLEI_BUNDLE, source, root / "x", formats=["onnx"], tiles=6, report=lambda line: None)


def test_onnx_finds_the_same_nuclei_wherever_there_are_more_or_fewer(folder):
    record = json.loads((folder / "export.json").read_text())
    found = record["check"]["agreement"]["onnx"]
    assert found["class_agreement"] == 1.0
    assert found["largest_probability_difference"] < 1e-4
    assert record["metadata"]["tile_px"] == "128"
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "models" / "model.onnx"), providers=["CPUExecutionProvider"])
    network = small_detector()
    noise = np.random.default_rng(0).integers(0, 256, (3, 128, 128), dtype=np.uint8)
    white = np.full_like(noise, 255)
    for tile in (noise, white):
        expected = detect(network, [torch.from_numpy(tile)]).detections
        assert bool(len(expected.scores)) == (tile is noise)
        boxes, labels, scores, *_ = session.run(None, {"image": tile})
        np.testing.assert_allclose(boxes, expected.boxes_px, atol=1e-2)
        assert labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("name", ["torchscript", "pt2"])
def test_formats_that_cannot_hold_a_detector(name, tmp_path):
    source = save_checkpoint(tmp_path / "model.pt", small_detector())
    with pytest.raises(ConfigError, match=f"cannot be exported to {name}: .*use onnx or openvino"):
        export_bundle(NUCLEI_BUNDLE, source, tmp_path / "x", formats=[name])


def test_an_auxiliary_detector_is_no_model():
    with pytest.raises(ConfigError, match="an auxiliary detector"):
        NucleiExport(small_detector(role="prototype"))


def test_a_tile_smaller_than_what_the_detector_sees():
    with pytest.raises(ConfigError, match="tile_px must be at least 16, twice the detector's coarsest stride"):
        NucleiExport(small_detector(), tile_px=8)


def test_a_trace_does_not_touch_the_network():
    network = small_detector()
    assert isinstance(NucleiExport(network).module, OneTileDetector)
    assert NucleiExport(network).module.network is not network


def nuclei(boxes, labels, probabilities, count):
    return {
        "count": np.array(count),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels),
        "scores": np.zeros(len(labels), np.float32),
        "probabilities": np.array(probabilities, np.float32).reshape(-1, 3),
    }


def test_agreement_counts_boxes_found_by_both_with_the_same_class():
    exported = NucleiExport(small_detector())
    a, b, c = [0, 0, 10, 10], [20, 0, 40, 20], [0, 0, 10, 10]
    ours = nuclei([a, b, c], [0, 1, 1], [[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.0, 0.3, 0.7]], [2, 1])
    # Tile 0: the same two boxes in the other order, one of another class. Tile 1: the box is missing, two are new.
    theirs = nuclei(
        [b, a, [50, 50, 60, 60], [70, 70, 80, 80]],
        [1, 1, 0, 0],
        [[0.2, 0.25, 0.55], [0.1, 0.4, 0.5], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]],
        [2, 2],
    )
    found = exported.compare(ours, theirs)
    assert (found.tiles, found.class_agreement) == (4, 0.25)
    assert found.largest_probability_difference == pytest.approx(0.4)


def test_nothing_found_is_nothing_compared():
    none = nuclei([], [], [], [0, 0])
    with pytest.raises(ConfigError, match="finds no nucleus on any tile"):
        NucleiExport(small_detector()).compare(none, none)
