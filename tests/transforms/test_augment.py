# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from tests.transforms.stained import stained_tiles
from tests.transforms.test_stain_profile import VECTORS
from tral_monai.errors import ConfigError
from tral_monai.transforms.augment import AugmentedPrepareBatch
from tral_monai.transforms.geometry import RandDihedral
from tral_monai.transforms.stain_jitter import RandStainJitter
from tral_monai.transforms.stain_normalize import MacenkoNormalize


def test_images_are_transformed_in_order_and_labels_kept() -> None:
    image, label = stained_tiles(VECTORS, count=4), torch.tensor([0, 1, 2, 1])
    prepare = AugmentedPrepareBatch([MacenkoNormalize(), RandDihedral()], seed=3)
    got, got_label = prepare({"image": image, "label": label}, device="cpu")
    expected = RandDihedral()(MacenkoNormalize()(image), torch.Generator().manual_seed(3))
    assert torch.equal(got, expected)
    assert torch.equal(got_label, label)


def test_cached_features_pass_untouched() -> None:
    features, label = torch.rand(4, 30, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    prepare = AugmentedPrepareBatch([RandStainJitter(probability=1.0)])
    got, _ = prepare({"image": features, "label": label}, device="cpu")
    assert torch.equal(got, features)


def test_pairs_and_batches_without_labels() -> None:
    image = stained_tiles(VECTORS)
    prepare = AugmentedPrepareBatch()
    assert prepare({"image": image})[1] is None
    assert torch.equal(prepare((image, torch.zeros(2)))[0], image)
    assert torch.equal(prepare(image)[0], image)


def test_a_seed_repeats_and_a_state_goes_on() -> None:
    image = stained_tiles(VECTORS, count=16, size=16)
    prepare = AugmentedPrepareBatch([RandDihedral(), RandStainJitter()], seed=1)
    first, second = prepare(image)[0], prepare(image)[0]
    assert not torch.equal(first, second)
    again = AugmentedPrepareBatch([RandDihedral(), RandStainJitter()], seed=1)
    assert torch.equal(again(image)[0], first)
    resumed = AugmentedPrepareBatch([RandDihedral(), RandStainJitter()], seed=99)
    resumed.load_state_dict(again.state_dict())
    assert torch.equal(resumed(image)[0], second)


def test_monais_trainer_uses_it_from_a_config() -> None:
    parser = ConfigParser(
        {
            "prepare": {
                "_target_": "tral_monai.transforms.augment.AugmentedPrepareBatch",
                "seed": 2,
                "transforms": [
                    {"_target_": "tral_monai.transforms.stain_normalize.MacenkoNormalize", "per": "triplet"},
                    {"_target_": "tral_monai.transforms.stain_jitter.RandStainJitter", "scale": 0.2},
                    {"_target_": "tral_monai.transforms.geometry.RandDihedral", "backend": "auto"},
                ],
            }
        }
    )
    prepare = parser.get_parsed_content("prepare")
    seen: list[torch.Tensor] = []

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(9, 2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return self.layer(image.float().mean(dim=(2, 3)))  # type: ignore[no-any-return]

    network = Network()
    batch = {"image": stained_tiles(VECTORS, count=4), "label": torch.tensor([0, 1, 0, 1])}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1e-6),
        loss_function=torch.nn.CrossEntropyLoss(),
        prepare_batch=prepare,
        decollate=False,
    )
    trainer.run()
    assert len(seen) == 1
    expected = AugmentedPrepareBatch(prepare.transforms, seed=2).transform(batch["image"])
    assert torch.equal(seen[0], expected)
    assert not torch.equal(seen[0], batch["image"])


def test_augmentation_is_outside_of_the_graph() -> None:
    image = stained_tiles(VECTORS).float().requires_grad_()
    assert not AugmentedPrepareBatch([RandStainJitter(probability=1.0)]).transform(image).requires_grad


def test_transforms_have_to_be_callable() -> None:
    with pytest.raises(ConfigError, match="transforms must be callables on a batch, but one is str"):
        AugmentedPrepareBatch(["flip"])  # type: ignore[list-item]
