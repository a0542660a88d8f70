# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer

from tests.inference.colour_slides import ColourNet
from tral_monai.errors import ConfigError
from tral_monai.inference.choose_tile_model import choose_tile_model
from tral_monai.inference.dense_context_model import DenseContextModel
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.recheck import RecheckedModel
from tral_monai.inference.tile_model import PerTileModel
from tral_monai.inference.tissue_mapper import TissueMapper
from tral_monai.networks.tri_cnn import TriCNN


def test_any_network_is_run_tile_by_tile() -> None:
    assert isinstance(choose_tile_model(ColourNet()), PerTileModel)


def test_a_network_with_dense_context_is_run_on_canvases_unless_an_inferer_runs_it() -> None:
    network = TriCNN(["a", "b"], backbone="timm:tf_efficientnet_lite0", hidden=(4,), context="dense", seed=0)
    assert isinstance(choose_tile_model(network), DenseContextModel)
    assert isinstance(choose_tile_model(network, inferer=SimpleInferer()), DenseContextModel)
    assert isinstance(choose_tile_model(network, inferer=SlidingWindowInferer((128, 128))), PerTileModel)


def test_half_precision_is_rechecked_unless_the_margin_is_0() -> None:
    model = choose_tile_model(ColourNet(), engine=EngineSettings(precision="bf16", recheck_margin=0.3))
    assert isinstance(model, RecheckedModel)
    assert isinstance(model.fast, PerTileModel)
    assert (model.margin, model.exact.engine.is_reference) == (0.3, True)
    assert isinstance(
        choose_tile_model(ColourNet(), engine=EngineSettings(precision="bf16", recheck_margin=0)), PerTileModel
    )


def test_half_precision_is_rechecked_by_the_rules_of_the_map() -> None:
    bf16 = EngineSettings(precision="bf16")
    model = choose_tile_model(ColourNet(), engine=bf16, undefined_below=0.6, damaged_at_least=0.9, damaged_output=3)
    assert isinstance(model, RecheckedModel)
    assert (model.undefined_below, model.damaged_at_least, model.damaged_output) == (0.6, 0.9, 3)
    mapper = TissueMapper(ColourNet(), engine=bf16, undefined_below=0.55, damaged_at_least=0.8)
    assert isinstance(mapper.model, RecheckedModel)
    assert mapper.model.undefined_below == 0.55
    assert (mapper.model.damaged_at_least, mapper.model.damaged_output) == (0.8, 3)


def test_gate_and_inferer_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave it out to use early_exit"):
        choose_tile_model(ColourNet(), early_exit="exit_gate.pt", inferer=SlidingWindowInferer((128, 128)))
