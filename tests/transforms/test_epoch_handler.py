# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from ignite.engine import Engine

from tral_monai.errors import ConfigError
from tral_monai.transforms.epoch_handler import EpochHandler


class Epochs:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.seen.append(epoch)


def test_every_epoch_is_passed_on_and_a_resumed_run_goes_on():
    dataset = Epochs()
    engine = Engine(lambda _, batch: batch)
    EpochHandler(dataset).attach(engine)
    engine.run([0, 1], max_epochs=2)
    assert dataset.seen == [1, 2]
    engine.load_state_dict({"epoch": 5, "max_epochs": 7, "epoch_length": 2})
    engine.run([0, 1])
    assert dataset.seen == [1, 2, 6, 7]


def test_a_dataset_without_epochs():
    with pytest.raises(ConfigError, match=r"dataset must have set_epoch\(epoch\), but list has not"):
        EpochHandler([])
