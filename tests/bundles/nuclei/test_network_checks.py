# SPDX-License-Identifier: Apache-2.0
"""The network as metadata.json describes it, and what docs/README.md says cannot be done with it."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out

from tests.bundles.bundle_files import NUCLEI
from tests.bundles.nuclei.disc_fields import INFERENCE, TINY, TRAIN
from tral_monai.networks.nuclei.detect import detect

METADATA = NUCLEI.config_folder / "metadata.json"


def network_of(**overrides):
    parser = ConfigParser()
    parser.read_config(str(TRAIN))
    parser.update({"bundle_root": str(NUCLEI.folder), "device": "$torch.device('cpu')", **overrides})
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("overrides", [{}, {"backbone": "timm:mobilenetv3_small_050", "network_options": TINY}])
def test_a_detector_of_train_yaml_fits_the_metadata(overrides):
    formats = json.loads(METADATA.read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    low, high = image["value_range"]
    pixels = torch.rand((image["num_channels"], 64, 96), generator=torch.Generator().manual_seed(0))
    assert str(pixels.dtype) == f"torch.{image['dtype']}"
    network = network_of(seed=0, **overrides)
    network.roi_heads.score_thresh = 0.0  # an untrained detector is sure of nothing
    found = detect(network, [low + (high - low) * pixels]).detections
    assert len(found.scores) > 0
    assert found.probabilities.shape == (len(found.scores), pred["num_channels"])
    assert str(found.probabilities.dtype) == pred["dtype"]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert list(pred["channel_def"].values()) == ["background", *network.classes]


def test_images_of_other_sizes_in_one_batch():
    network = network_of(backbone="timm:mobilenetv3_small_050", network_options=TINY, seed=0)
    images = [torch.full((3, height, width), 200, dtype=torch.uint8) for height, width in ((64, 64), (50, 97))]
    assert len(detect(network, images).detections) == 2


def settings(trained):
    checkpoint = str(trained[0] / "model.pt")
    common = {"net_id": "network_def", "meta_file": str(METADATA), "config_file": str(INFERENCE)}
    return {**common, "bundle_root": str(NUCLEI.folder), "checkpoint": checkpoint}, checkpoint


def test_the_shape_check_of_one_tensor_does_not_apply(trained):
    with pytest.raises(AttributeError, match="'list' object has no attribute 'shape'"):
        verify_net_in_out(device="cpu", **settings(trained)[0])


def test_there_is_no_torchscript(trained, tmp_path):
    options, checkpoint = settings(trained)
    exported = tmp_path / "model.ts"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        with pytest.raises(RuntimeError, match="Unknown type name"):
            ckpt_export(filepath=str(exported), ckpt_file=checkpoint, key_in_ckpt="model", **options)
    assert not exported.exists()
