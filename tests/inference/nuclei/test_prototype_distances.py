# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference.nuclei.disc_fields import CLASSES, DiscNet, draw_discs
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper
from tral_monai.inference.nuclei.prototype_distances import PrototypeDistances
from tral_monai.networks.nuclei.detect import roi_features
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

FIELD = draw_discs((128, 96), [(40, 40, 10, 0), (90, 50, 12, 1)])
BOXES = np.array([[30, 30, 51, 51], [78, 38, 103, 63]], dtype=np.float32)
NONE = np.empty((0, 4), dtype=np.float32)


def test_distances_are_those_of_the_embeddings_to_both_points(auxiliary: OpenSetRCNN) -> None:
    found = PrototypeDistances(auxiliary)([FIELD, FIELD], [NONE, BOXES])
    prototypes = auxiliary.prototypes
    assert prototypes is not None
    features = torch.from_numpy(roi_features(auxiliary, [FIELD], [BOXES]))
    with torch.no_grad():
        offsets = prototypes.embed(features)[:, None] - prototypes.points[None]
    np.testing.assert_allclose(found, np.linalg.norm(offsets.numpy(), axis=2), rtol=1e-4)
    assert found.shape == (2, 2)
    assert found.dtype == np.float32


def test_without_boxes_there_are_no_distances(auxiliary: OpenSetRCNN) -> None:
    assert PrototypeDistances(auxiliary)([FIELD], [NONE]).shape == (0, 2)


def small_auxiliary(**settings: object) -> OpenSetRCNN:
    sizes = {"backbone": "timm:mobilenetv3_small_050", "strides": (4, 8), "pool_level": False, "fpn_channels": 16}
    return OpenSetRCNN(CLASSES, role="prototype", seed=0, representation=16, **{**sizes, **settings}).eval()


def test_a_side_that_was_never_seen_has_no_distance() -> None:
    network = small_auxiliary()
    assert network.prototypes is not None
    network.prototypes.ready[0] = True
    found = PrototypeDistances(network)([FIELD], [BOXES])
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()


def test_damaged_weights_are_an_error() -> None:
    network = small_auxiliary()
    assert network.prototypes is not None
    network.prototypes.ready[:] = True
    with torch.no_grad():
        network.prototypes.points[0] = float("nan")
    with pytest.raises(CheckpointError, match="the auxiliary detector's distances are not finite"):
        PrototypeDistances(network)([FIELD], [BOXES])


def test_the_network_must_have_prototypes_and_see_the_same_pixels(detector: OpenSetRCNN) -> None:
    with pytest.raises(ConfigError, match="must have the role 'prototype', but has 'target'"):
        PrototypeDistances(detector)
    with pytest.raises(ConfigError, match=r"was trained at 0\.25 and the auxiliary one at 0\.5 um per pixel"):
        NucleusMapper(DiscNet(), small_auxiliary(fov_mpp=0.5))


def test_its_weights_are_part_of_the_settings(auxiliary: OpenSetRCNN) -> None:
    one = NucleusMapper(DiscNet(), auxiliary).settings()["auxiliary"]
    other = NucleusMapper(DiscNet(), small_auxiliary()).settings()["auxiliary"]
    assert one["fov_mpp"] == 0.25
    assert one["weights_sha256"] != other["weights_sha256"]
    assert NucleusMapper(DiscNet()).settings()["auxiliary"] is None
