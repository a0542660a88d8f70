# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tests.inference.early_exit.small_networks import small_network
from tral_monai.errors import ConfigError
from tral_monai.inference.early_exit.low_branches import Branches, low_feature_columns, low_scales


@pytest.mark.parametrize(
    ("magnifications", "low"), [((40, 10, 2.5), (1, 2)), ((2.5, 40, 10), (0, 2)), ((10, 40), (0,))]
)
def test_all_but_the_highest_magnification_are_low(magnifications, low):
    network = small_network(magnifications=magnifications)
    width = network.num_features // len(magnifications)
    assert low_scales(network) == low
    assert low_feature_columns(network).tolist() == [c for s in low for c in range(s * width, (s + 1) * width)]


@pytest.mark.parametrize("options", [{}, {"share_weights": True}, {"magnifications": (2.5, 40, 10)}])
def test_branches_alone_give_their_part_of_the_features(options):
    network = small_network(**options)
    image = torch.randint(0, 256, (3, 9, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scales = low_scales(network)
    with torch.inference_mode():
        whole = network.features(image)[:, low_feature_columns(network)]
        parts = Branches(network, scales)(torch.cat([image[:, 3 * s : 3 * s + 3] for s in scales], dim=1))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_one_magnification_is_refused():
    with pytest.raises(ConfigError, match=r"needs a network with several magnifications, but this one has \(10\.0,\)"):
        low_scales(small_network(magnifications=(10,)))


def test_stain_normalisation_is_refused():
    with pytest.raises(ConfigError, match="early exit does not go with stain_normalization"):
        low_scales(small_network(stain_normalization=True))


def test_branches_of_a_moved_network_run_where_it_is():
    network = small_network().double()
    tiles = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    (features,) = Branches(network, (network.highest_scale,))(tiles)
    assert features.dtype == torch.float64
    (features,) = Branches(network.to("meta"), (network.highest_scale,))(tiles.to("meta"))
    assert features.device.type == "meta"
