# SPDX-License-Identifier: Apache-2.0
"""inference.yaml with another engine and everything that can be saved: what lies in the files, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr

from tests.bundles.bundle_files import BLADDER, BUNDLE, CONFIGS, SMALL
from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.inference.class_map_png import read_class_map
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.bundle_run import run_workflow
from tral_monai.slides.slide import open_slide
from tral_monai.slides.triplets import TripletReader

SLIDE = ("......", ".SSSS.", ".SMBM.", "......")  # 8 tiles of tissue, in rows 1 and 2
FILES = {"s.geojson", "s.json", "s_classes.png", "s_overlay.png", "areas.csv"}
SAVED = {"s_features.h5", "s_probabilities.ome.zarr"}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "s.tif", slide_pixels(SLIDE))


def infer(slide: Path, checkpoint: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Run the bundle and give the slide's record."""
    run_workflow(
        [CONFIGS / "inference.yaml"],
        bundle_root=str(BUNDLE),
        **{"checkpoint": str(checkpoint), "slides": str(slide), "output_dir": str(output)},
        **{"device": "$torch.device('cpu')", "tissue_method": "paper", "undefined_below": 0.0, "num_workers": 0},
        **options,
    )
    return json.loads((output / "s.json").read_text())


@pytest.fixture(scope="module")
def tiles(slide: Path) -> torch.Tensor:
    """(8, 9, 128, 128) uint8, row by row."""
    centres = np.array([(128 * column + 64, 128 * row + 64) for row in (1, 2) for column in range(1, 5)])
    with open_slide(slide) as opened:
        images = torch.from_numpy(TripletReader(opened).read(centres))  # (8, 3, 128, 128, 3)
    return images.permute(0, 1, 4, 2, 3).reshape(8, 9, 128, 128)


@pytest.fixture(scope="module")
def checkpoint(tiles: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights whose classes depend on the tile: its logits differ by a few units."""
    network = TriCNN(BLADDER, **SMALL, seed=0).eval()
    with torch.no_grad():
        features = network.features(tiles)
        (layer,) = (layer for layer in network.head.modules() if isinstance(layer, torch.nn.Linear))
        centred = (features - features.mean(dim=0)) @ layer.weight.T
        layer.weight.mul_(3.0 / centred.std())
        layer.bias.copy_(-layer.weight @ features.mean(dim=0))
    return save_checkpoint(tmp_path_factory.mktemp("classes") / "model.pt", network)


@pytest.fixture(scope="module")
def expected(tiles: torch.Tensor, checkpoint: Path) -> tuple[np.ndarray, np.ndarray]:
    """(8, F) features and (8, 6) probabilities as the network itself gives them."""
    network = load_checkpoint(checkpoint, expect=TriCNN)
    with torch.inference_mode():
        return network.features(tiles).numpy(), torch.softmax(network(tiles), dim=1).numpy()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"engine": "torch", "precision": "bf16"}, 0.1),
        pytest.param({"engine": "openvino"}, 1e-3, marks=pytest.mark.slow),  # made for 20 s
        pytest.param({"engine": "onnxruntime"}, 1e-3, marks=pytest.mark.slow),
    ],
    ids=["bf16", "openvino", "onnxruntime"],
)
def test_another_engine_with_everything_saved(options, tolerance, slide, checkpoint, expected, tmp_path):
    if options["engine"] != "torch":
        pytest.importorskip(options["engine"])
        pytest.importorskip("onnx")
    features, probabilities = expected
    settings = {"save_features": True, "save_probabilities": True, "agreement_tiles": 8, **options}
    record = infer(slide, checkpoint, tmp_path, **settings)

    assert {path.name for path in tmp_path.iterdir()} == FILES | SAVED
    assert record["runtime"]["agreement"]["tiles"] == 8
    assert (record["settings"]["engine"], record["settings"]["precision"]) == (
        options["engine"],
        options.get("precision", "fp32"),
    )
    assert FILES - {"areas.csv", "s.json"} | SAVED == set(record["files"])
    with h5py.File(tmp_path / "s_features.h5") as file:
        assert file["coords"][:].tolist() == [[128 * column, 128 * row] for row in (1, 2) for column in range(1, 5)]
        np.testing.assert_allclose(file["features"][:], features, atol=tolerance * np.abs(features).max())
        assert list(file.attrs["classes"]) == list(BLADDER)
        assert file.attrs["weights_sha256"] == record["model"]["weights_sha256"]
    group = zarr.open_group(str(tmp_path / "s_probabilities.ome.zarr"), mode="r")
    found = group["0"][:]
    assert found.shape == (6, 4, 6)
    np.testing.assert_allclose(found[:, 1:3, 1:5].reshape(6, 8).T, probabilities, atol=tolerance + 1e-3)  # float16
    assert np.isnan(found[:, 0]).all()
    shown, names = read_class_map(tmp_path / "s_classes.png")
    best = [BLADDER[output] for output in found[:, 1:3, 1:5].argmax(axis=0).ravel()]
    assert [names[value] for value in shown[1:3, 1:5].ravel()] == best
    assert best == [BLADDER[output] for output in probabilities.argmax(axis=1)]
    assert len(set(best)) > 1


def test_precision_does_a_slide_again_and_the_same_command_keeps_it(slide, small_checkpoint, tmp_path):
    saved = {"save_features": True, "save_probabilities": True}
    first = infer(slide, small_checkpoint, tmp_path, precision="bf16", agreement_tiles=8, **saved)
    second = infer(slide, small_checkpoint, tmp_path, precision="fp32", agreement_tiles=8)
    assert (first["settings"]["precision"], second["settings"]["precision"]) == ("bf16", "fp32")
    assert second["runtime"]["agreement"] is None  # it is the reference
    assert {path.name for path in tmp_path.iterdir()} == FILES  # nothing of the first run looks current
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "areas.csv"}
    infer(slide, small_checkpoint, tmp_path, precision="fp32", agreement_tiles=8)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "areas.csv"} == before
    assert "kept" in (tmp_path / "areas.csv").read_text()
