# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tral_monai.errors import AnnotationError, ConfigError
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Build = Callable[..., OpenSetRCNN]
Field = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]


def losses_of(network: OpenSetRCNN, field: Field, *, fields: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    pairs = [field(s) for s in range(fields)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = network.train()([i for i, _ in pairs], [t for _, t in pairs])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("options", "outputs", "extra"),
    [
        ({}, ("dark", "red"), {"loss_foreground", "loss_evidence"}),
        ({"head": "softmax"}, ("dark", "red"), {"loss_classifier"}),
        ({"role": "prototype"}, ("known", "unknown"), {"loss_classifier", "loss_prototype"}),
        ({"role": "k_plus_one"}, ("dark", "red", "unknown"), {"loss_classifier"}),
        ({"loss_prediction": True}, ("dark", "red"), {"loss_foreground", "loss_evidence", "loss_prediction"}),
    ],
)
def test_every_role_trains_all_of_its_weights(
    build: Build, field: Field, options: dict[str, object], outputs: tuple[str, ...], extra: set[str]
) -> None:
    network = build(**options)
    assert network.outputs == outputs
    assert network.classes == ("dark", "red")
    losses = losses_of(network, field)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_box_reg"} | extra
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_the_weight_of_the_prototype_loss(build: Build, field: Field) -> None:
    light = losses_of(build(role="prototype", prototype_weight=0.1), field)["loss_prototype"]
    heavy = losses_of(build(role="prototype", prototype_weight=0.3), field)["loss_prototype"]
    assert heavy.item() == pytest.approx(3 * light.item(), rel=1e-4)


def test_loss_prediction_stops_at_the_backbone_late_in_training(build: Build, field: Field) -> None:
    network = build(loss_prediction=True, detach_at=0.5)
    for progress, reaches in ((0.0, True), (0.49, True), (0.5, False), (1.0, False)):
        network.progress = progress
        network.zero_grad()
        losses_of(network, field, fields=4)["loss_prediction"].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.backbone.parameters()) == reaches
        assert network.loss_prediction is not None
        assert all(p.grad is not None for p in network.loss_prediction.parameters())


def test_the_seed_decides_the_weights_and_nothing_else(build: Build) -> None:
    before = torch.get_rng_state()
    first, second, other = build(seed=5), build(seed=5), build(seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_ignored_nuclei_teach_the_detector_nothing(build: Build, field: Field) -> None:
    """A third, green nucleus is learnt as background if it is not annotated, and not at all if it is ignored."""
    found = {}
    for name, label in (("ignored", -1), ("background", None)):
        network = build(roi_samples=32)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        fields = [field(seed, labels=(1, 2, 3, 3)) for seed in range(4)]
        for _, target in fields:
            target["labels"][2:] = -1
            if label is None:
                target["boxes"], target["labels"] = target["boxes"][:2], target["labels"][:2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network.train()
            for _ in range(60):
                losses = network([i for i, _ in fields], [t for _, t in fields])
                assert isinstance(losses, dict)
                optimizer.zero_grad()
                torch.stack(list(losses.values())).sum().backward()
                optimizer.step()
        image, target = field(0, labels=(1, 2, 3, 3))
        network.eval()
        with torch.no_grad():
            features = network.features_at([image], [target["boxes"]])
            probabilities = network.roi_heads.box_predictor.probabilities(network.roi_heads.box_predictor(features))
        known = probabilities[:2, 1:].sum(dim=1).mean().item()
        found[name] = probabilities[2:, 1:].sum(dim=1).mean().item()
        assert known > 0.6
    assert found["background"] < 0.3
    assert found["ignored"] > found["background"] + 0.2


def test_it_learns_to_find_and_to_name(build: Build, field: Field) -> None:
    network = build(class_agnostic_nms=True, roi_samples=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    fields = [field(seed) for seed in range(6)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.train()
        for _ in range(80):
            losses = network([i for i, _ in fields], [t for _, t in fields])
            assert isinstance(losses, dict)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
    image, target = field(3)
    best = detect(network, [image]).detections
    top = best.boxes_px[:2][best.labels[:2].argsort()]
    assert sorted(best.labels[:2]) == [0, 1]
    assert abs(torch.from_numpy(top) - target["boxes"]).max() < 3.0


def test_pooled_levels_do_not_depend_on_the_padding(build: Build, field: Field) -> None:
    # Beside a larger image the small one is padded to four times its area.
    network = build(loss_prediction=True)
    small, large = field(0)[0][:, :50, :50], torch.full((3, 100, 100), 90, dtype=torch.uint8)
    want = {"image_features", "predicted_losses"}
    alone, beside = detect(network, [small], want=want), detect(network, [small, large], want=want)
    assert alone.image_features is not None
    assert beside.image_features is not None
    assert alone.predicted_losses is not None
    assert beside.predicted_losses is not None
    # Not quite the same: the padding still borders on the last pixels of the image.
    difference = abs(alone.image_features[0] - beside.image_features[0]).max()
    assert difference < 0.1 * abs(alone.image_features[0]).max()
    assert beside.predicted_losses[0] == pytest.approx(alone.predicted_losses[0], abs=0.01)


def test_evaluation_without_targets_gives_detections(build: Build, field: Field) -> None:
    network = build(upsample=2.0).eval()
    image, _ = field(0)
    with torch.no_grad():
        (found,) = network([image])
    boxes = found["boxes"]
    assert set(found) == {"boxes", "labels", "scores"}
    assert len(boxes)
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert boxes.max() > 40  # in pixels of the image, not of half of it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "dark"}, "classes must be a list of at least one name"),
        ({"classes": ("a", "a")}, "a stands more than once"),
        ({"role": "auxiliary"}, "role must be one of .*but is 'auxiliary'"),
        ({"head": "sigmoid"}, "head must be one of .*but is 'sigmoid'"),
        ({"roi_sample": 3}, "no setting 'roi_sample'; near it: roi_samples"),
    ],
)
def test_bad_options(build: Build, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_bad_batches(build: Build, field: Field) -> None:
    network = build().train()
    image, target = field(0)
    with pytest.raises(ConfigError, match="at least one image"):
        network([], [])
    with pytest.raises(ConfigError, match="training needs targets"):
        network([image])
    with pytest.raises(ConfigError, match="there are 2 images and 1 targets"):
        network([image, image], [target])
    flat = {"boxes": torch.tensor([[4.0, 4.0, 4.0, 9.0]]), "labels": torch.tensor([1]), "id": torch.tensor(17)}
    with pytest.raises(AnnotationError, match=r"field 17 has a box without area.*\[4.0, 4.0, 4.0, 9.0\]"):
        network([image], [flat])
    with pytest.raises(AnnotationError, match="image 0 of the batch has labels from 3 to 3.*takes -1 .* and 1 to 2"):
        network([image], [{**target, "labels": torch.tensor([3, 3])}])
    with pytest.raises(
        AnnotationError, match=r"must have boxes \(k, 4\) and labels \(k,\), but has \(2, 4\) and \(1,\)"
    ):
        network([image], [{**target, "labels": torch.tensor([1])}])
