# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.colour_slides import ColourNet
from tral_monai.errors import ConfigError
from tral_monai.inference.choose_tile_model import choose_tile_model
from tral_monai.inference.dense_context_model import DenseContextModel
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import PerTileModel, TileOutputs
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import open_slide

LITE = "timm:tf_efficientnet_lite0"


def dense_network(backbone: str = LITE, **options: Any) -> TriCNN:
    return TriCNN(
        ("a", "b", "c"), **{"backbone": backbone, "hidden": (8,), "context": "dense", "seed": 0, **options}
    ).eval()


def grid_block(columns: int = 4, rows: int = 3) -> DeviceBlock:
    """Neighbouring tiles at the paper's grid: 128, 32 and 8 px apart at 40x, 10x and 2.5x."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[x, y] for y in range(rows) for x in range(columns)])
    canvases, starts = [], []
    for step in (128, 32, 8):
        coarse = torch.rand(1, 3, (rows - 1) * step // 8 + 16, (columns - 1) * step // 8 + 16, generator=generator)
        picture = torch.nn.functional.interpolate(255 * coarse, scale_factor=8, mode="nearest")[0]
        canvases.append(picture.permute(1, 2, 0).to(torch.uint8).contiguous())
        starts.append(places * step)
    return DeviceBlock(tuple(canvases), torch.stack(starts), 128)


def run(model: Any, block: DeviceBlock, *, want_features: bool = False) -> TileOutputs:
    told: list[int] = []
    with torch.inference_mode():
        outputs: TileOutputs = model(block, want_features=want_features, done=told.append)
    assert sum(told) == len(block)
    return outputs


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("vgg11", {}), (LITE, {}), (LITE, {"magnifications": (2.5, 40, 10), "feature_norm": "batch"})],
    ids=["vgg", "lite", "another order"],
)
def test_a_block_gets_what_its_tiles_get_one_by_one(backbone: str, options: dict[str, Any]) -> None:
    network, block = dense_network(backbone, **options), grid_block(3, 2)
    if "magnifications" in options:
        order = [2, 0, 1]
        block = dataclasses.replace(
            block, canvases=tuple(block.canvases[i] for i in order), starts_px=block.starts_px[order]
        )
    expected = run(PerTileModel(network), block, want_features=True)
    found = run(DenseContextModel(network, batch_size=4), block, want_features=True)
    assert expected.features is not None
    assert found.features is not None
    assert relative_error(found.features, expected.features) < 1e-4
    assert relative_error(found.logits, expected.logits) < 1e-4
    assert expected.features.std(dim=0).max() > 1e-3  # tiles differ
    assert run(DenseContextModel(network), block).features is None


@pytest.mark.parametrize("mpp", [0.25, 0.2437], ids=["exact", "inexact"])
def test_tiles_of_a_slide_up_to_its_borders(tmp_path: Any, mpp: float) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((640, 512), Image.Resampling.BICUBIC).save(tmp_path / "slide.png")
    network = dense_network()
    with open_slide(tmp_path / "slide.png", mpp=mpp) as slide:
        side = 128 * 0.25 / mpp
        centres = np.array([[round((x + 0.5) * side), round((y + 0.5) * side)] for y in range(3) for x in (0, 1, 4)])
        reader = CanvasReader(slide)
        (indices,) = reader.plan(centres)
        read = reader.read(centres, indices)
    block = DeviceBlock(tuple(map(torch.from_numpy, read.canvases)), torch.from_numpy(read.starts_px), read.tile_px)
    assert all((canvas == 255).all(dim=2).any() for canvas in block.canvases[1:])  # the slide's surroundings
    expected, found = (run(model, block).logits for model in (PerTileModel(network), DenseContextModel(network)))
    assert relative_error(found, expected) < 1e-4


def test_the_lower_magnifications_are_computed_once_for_a_block() -> None:
    network, block = dense_network(), grid_block(6, 4)
    seen: dict[int, list[tuple[int, ...]]] = {0: [], 1: [], 2: []}
    for scale, branch in enumerate(network.branches):
        first: Any = branch.conv_stem
        first.register_forward_pre_hook(lambda _, args, scale=scale: seen[scale].append(tuple(args[0].shape)))
    run(DenseContextModel(network, batch_size=10), block)
    assert seen[0] == [(10, 3, 128, 128), (10, 3, 128, 128), (4, 3, 128, 128)]
    # 3 and 5 steps of 32 px, and of 8 px, beside 128 px, of which cells of 67 px in steps of 8 px see all but 5 px.
    assert seen[1] == [(1, 3, 128 + 3 * 32 - 5, 128 + 5 * 32)]
    assert seen[2] == [(1, 3, 128 + 3 * 8 - 5, 128 + 5 * 8)]


ENGINES = [
    EngineSettings(precision="bf16"),
    pytest.param(EngineSettings(name="onnxruntime"), marks=pytest.mark.slow),  # the export takes 15 s
]


@pytest.mark.parametrize("engine", ENGINES, ids=["bf16", "onnxruntime"])
def test_other_engines_stay_near_the_network(engine: EngineSettings) -> None:
    if engine.name == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="extra 'export' is not installed")
        pytest.importorskip("onnxscript", reason="extra 'export' is not installed")
    network, block = dense_network(), grid_block(2, 2)
    model = DenseContextModel(network, engine=engine, batch_size=4)
    found = run(model, block, want_features=True).features
    expected = run(PerTileModel(network), block, want_features=True).features
    assert found is not None
    assert expected is not None
    limit = 0.05 if engine.precision == "bf16" else 1e-4
    for part, whole in zip(
        found.split(network.branch_widths, dim=1), expected.split(network.branch_widths, dim=1), strict=True
    ):
        assert relative_error(part, whole) < limit
    assert model.settings() == {"engine": engine.name, "precision": engine.precision}
    assert model.runtime()["context"] == "dense"


def test_a_network_that_is_moved_afterwards_takes_its_normalisation_along() -> None:
    network, block = dense_network(), grid_block(2, 1)
    model = DenseContextModel(network)
    expected = run(model, block).logits
    network.double()
    torch.testing.assert_close(run(model, block).logits, expected, atol=1e-4, rtol=1e-4)


def test_the_engine_is_made_for_whole_batches_and_anew_after_a_reset() -> None:
    network, block = dense_network(), grid_block(2, 1)
    model = DenseContextModel(network, engine=EngineSettings(precision="bf16"), batch_size=3)
    seen: list[int] = []
    first: Any = network.branches[network.highest_scale].conv_stem
    first.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    before = run(model, block, want_features=True).features
    assert seen == [1, 3, 2]  # the cast is tried, then the engine with its example, then the block
    with torch.no_grad():
        for branch in network.branches:
            stem: Any = branch.conv_stem
            stem.weight.mul_(-1.0)
    old = run(model, block, want_features=True).features
    model.reset()
    new = run(model, block, want_features=True).features
    assert before is not None
    assert old is not None
    assert new is not None
    assert torch.equal(old, before)
    for part, whole in zip(
        new.split(network.branch_widths, dim=1), before.split(network.branch_widths, dim=1), strict=True
    ):
        assert relative_error(part, whole) > 0.02


def test_a_network_with_dense_context_is_run_so() -> None:
    network = dense_network()
    assert isinstance(choose_tile_model(network), DenseContextModel)
    assert DenseContextModel(network).settings() == PerTileModel(network).settings()
    tile = TriCNN(("a", "b"), backbone="timm:mobilenetv3_small_050", hidden=())
    assert isinstance(choose_tile_model(tile), PerTileModel)


@pytest.mark.parametrize("network", [TriCNN(("a", "b"), backbone="timm:mobilenetv3_small_050", hidden=()), ColourNet()])
def test_other_networks_are_refused(network: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"trained with context='dense', but the network is a (TriCNN|ColourNet) wi"):
        DenseContextModel(network)
