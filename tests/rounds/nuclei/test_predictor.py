# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from tests.rounds.nuclei.conftest import make_network
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import CheckpointError, ConfigError, SlideReadError
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.nuclei.detect import detect, roi_features
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.transforms.views import View, add_noise


@pytest.fixture(scope="module")
def direct(fields, checkpoint):
    """The network and the pictures of the test."""
    reader = FovReader()
    return load_checkpoint(checkpoint), [reader.read(row) for _, row in fields.split("test").iterrows()]


def test_it_is_the_network_over_the_table(fields, checkpoint, direct):
    network, images = direct
    want = {"evidence", "image_features", "predicted_losses"}
    expected = detect(network, images, want=want)
    done = []
    predictor = FieldPredictor(batch_size=3, progress=lambda *state: done.append(state))
    got = predictor.predict(checkpoint, fields.split("test"), want=want)
    assert got.detections.counts.tolist() == expected.detections.counts.tolist()
    assert got.detections.counts.sum() > 0
    assert list(got.detections.columns()) == list(expected.detections.columns())
    np.testing.assert_allclose(got.detections.boxes_px, expected.detections.boxes_px, atol=1e-2)
    np.testing.assert_allclose(got.detections.evidence, expected.detections.evidence, atol=1e-4)
    np.testing.assert_allclose(got.image_features, expected.image_features, atol=1e-4)
    np.testing.assert_allclose(got.predicted_losses, expected.predicted_losses, atol=1e-4)
    assert got.views == ()
    assert done == [(3, 8), (6, 8), (8, 8)]


def test_nothing_more_than_asked(fields, checkpoint):
    got = FieldPredictor().predict(checkpoint, fields.split("test"))
    assert set(got.detections.columns()) == {"boxes_px", "labels", "scores", "probabilities"}
    assert got.image_features is None
    assert got.predicted_losses is None


def test_views_come_back_in_the_fields_own_pixels(fields, checkpoint, direct):
    network, images = direct
    views = (View("small", scale=0.8), View("flip", element=1))
    got = FieldPredictor(batch_size=5).predict(checkpoint, fields.split("test"), views=views, view_want={"proposals"})
    assert [len(found) for found in got.views] == [8, 8]
    seen = [views[0].image(torch.from_numpy(image).permute(2, 0, 1)) for image in images]
    small = detect(network, seen).detections
    # 0.8 * 64 is 51.2, so the view is 51 px wide.
    np.testing.assert_allclose(got.views[0].boxes_px, small.boxes_px * 64 / 51, atol=1e-2)
    assert all(found.proposals_px is not None for found in got.views)
    assert got.detections.proposals_px is None
    assert got.noisy == ()


def test_noise_depends_on_the_field_alone(fields, checkpoint, direct):
    network, images = direct
    table = fields.split("test")
    got = FieldPredictor(batch_size=3).predict(checkpoint, table, noise_levels=(16.0,), noise_want={"logits"})
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    noisy = [add_noise(image, 16.0, fov_id=int(number)) for image, number in zip(tensors, table["id"], strict=True)]
    expected = detect(network, noisy, want={"logits"}).detections
    assert len(got.noisy) == 1
    np.testing.assert_allclose(got.noisy[0].logits, expected.logits, atol=1e-4)
    backwards = FieldPredictor().predict(checkpoint, table.iloc[::-1], noise_levels=(16.0,)).noisy[0]
    np.testing.assert_allclose(backwards.of_image(7).boxes_px, expected.of_image(0).boxes_px, atol=1e-2)


def test_roi_features_of_given_boxes(fields, checkpoint, direct):
    network, images = direct
    table = fields.split("test")
    got = FieldPredictor(batch_size=3).roi_features(checkpoint, table)
    expected = roi_features(network, images, list(table["boxes_px"]))
    assert got.shape == (sum(len(boxes) for boxes in table["boxes_px"]), 32)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert FieldPredictor().roi_features(checkpoint, table.iloc[:0]).shape == (0, 32)


def test_an_empty_table(fields, checkpoint):
    got = FieldPredictor().predict(
        checkpoint,
        fields.split("test").iloc[:0],
        want={"features", "image_features"},
        views=(View("flip", element=1),),
        noise_levels=(8.0,),
    )
    assert len(got.detections) == 0
    assert got.detections.features.shape == (0, 32)
    assert got.image_features.shape[0] == 0
    assert [len(found) for found in got.views + got.noisy] == [0, 0]


def test_a_file_that_was_trained_again_is_loaded_again(fields, tmp_path):
    predictor, table = FieldPredictor(), fields.split("test").iloc[:2]
    path = save_checkpoint(tmp_path / "model.pt", make_network(fields, seed=5))
    first = predictor.predict(path, table).detections.scores
    assert np.array_equal(predictor.predict(path, table).detections.scores, first)
    save_checkpoint(path, make_network(fields, seed=6))
    assert not np.array_equal(predictor.predict(path, table).detections.scores, first)


def test_what_this_detector_cannot_give(fields, checkpoint):
    with pytest.raises(ConfigError, match="only a detector of role 'prototype' has prototype_distances"):
        FieldPredictor().predict(checkpoint, fields.split("test"), want={"prototype_distances"})


def test_wrong_arguments(fields, tmp_path, checkpoint):
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, but is 0"):
        FieldPredictor(batch_size=0)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        FieldPredictor().predict(tmp_path / "none.pt", fields.split("test"))
    lost = fields.split("test").assign(image="lost.png")
    with pytest.raises(SlideReadError, match="lost.png: no such image"):
        FieldPredictor().predict(checkpoint, lost)
