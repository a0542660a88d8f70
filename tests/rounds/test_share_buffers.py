# SPDX-License-Identifier: Apache-2.0
"""That it makes processes agree is tested with two of them in tests/bundles/test_multi_gpu_train.py."""

import torch
from ignite.engine import Engine

from tral_monai.rounds.share_buffers import ShareBuffers


def test_one_process_alone_keeps_its_buffers():
    network = torch.nn.BatchNorm1d(2)
    network.running_mean += torch.tensor([3.0, 4.0])
    engine = Engine(lambda *_: None)
    ShareBuffers(network).attach(engine)
    engine.run([0])
    assert network.running_mean.tolist() == [3.0, 4.0]
