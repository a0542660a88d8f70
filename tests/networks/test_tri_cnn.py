# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.transforms.stained import stained_tiles
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.transforms.stain_normalize import MacenkoNormalize

CLASSES = ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
SMALL = "torchvision:shufflenet_v2_x0_5"  # 1024 features, batch norm inside, 10 ms to build


def triplets(n: int, *, seed: int = 0, size: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 9, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def paper_network() -> TriCNN:
    return TriCNN(CLASSES, seed=0).eval()


@pytest.fixture
def small() -> TriCNN:
    return TriCNN(("a", "b", "c"), backbone=SMALL, hidden=(16,), seed=1)


def test_default_has_the_papers_parameters(paper_network: TriCNN) -> None:
    assert sum(p.numel() for p in paper_network.parameters()) == 67_245_510
    assert [type(m).__name__ for m in paper_network.head] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [(m.in_features, m.out_features) for m in paper_network.head if isinstance(m, nn.Linear)] == [
        (1536, 4096),
        (4096, 4096),
        (4096, 6),
    ]
    assert paper_network.num_features == 1536
    assert paper_network.dropout == 0.4
    assert paper_network.backbone == "torchvision:vgg16"
    assert torch.equal(paper_network.mean, torch.zeros(1, 3, 1, 1))
    assert torch.equal(paper_network.std, torch.ones(1, 3, 1, 1))


def test_branches_are_independent_and_in_the_order_of_the_channels(paper_network: TriCNN) -> None:
    image = triplets(1)
    by_hand = []
    with torch.no_grad():
        for scale in range(3):
            feature_map = paper_network.branches[scale].features(image[:, 3 * scale : 3 * scale + 3].float())
            assert feature_map.shape == (1, 512, 4, 4)
            by_hand.append(feature_map.mean(dim=(2, 3)))
        torch.testing.assert_close(paper_network.features(image), torch.cat(by_hand, dim=1))
    first = [b.features[0].weight for b in paper_network.branches]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


@torch.no_grad()
def test_uint8_float_and_cached_features_give_the_same_logits(small: TriCNN) -> None:
    small.eval()
    image = triplets(4)
    logits = small(image)
    assert logits.shape == (4, 3)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(small(image.float()), logits, rtol=0, atol=0)
    torch.testing.assert_close(small(small.features(image)), logits, rtol=0, atol=0)


@torch.no_grad()
def test_normalisation_happens_inside() -> None:
    image = triplets(2)
    kwargs = {"backbone": SMALL, "hidden": (), "seed": 3}
    imagenet = TriCNN(("a", "b"), normalization="imagenet", **kwargs).eval()
    raw = TriCNN(("a", "b"), normalization="raw255", **kwargs).eval()
    mean = torch.tensor([0.485, 0.456, 0.406] * 3).view(1, 9, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225] * 3).view(1, 9, 1, 1)
    torch.testing.assert_close(imagenet(image), raw((image / 255.0 - mean) / std), rtol=1e-4, atol=1e-4)
    assert TriCNN(("a", "b"), **kwargs).normalization == imagenet.normalization  # what "auto" means for it


def test_frozen_backbones_stay_as_they_are_in_training() -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(8,), frozen=True, dropout=0.0, seed=0).train()
    assert net.training
    assert net.head.training
    assert not any(m.training for m in net.branches.modules())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    features = net.features(triplets(4))
    assert not features.requires_grad
    nn.functional.cross_entropy(net(triplets(4)), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    after = net.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias"}


def test_unfrozen_network_trains_every_branch(small: TriCNN) -> None:
    small.train()
    small(triplets(4)).sum().backward()
    for branch in small.branches:
        assert all(p.grad is not None for p in branch.parameters())


def test_dropout_can_be_set_at_any_time(paper_network: TriCNN) -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(64, 64), dropout=0.1, seed=0)
    net.dropout = 0.5
    assert net.dropout == 0.5
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    with pytest.raises(ConfigError, match=r"dropout must be at least 0 and below 1, but is 1\.0"):
        net.dropout = 1.0
    with pytest.raises(ConfigError, match="dropout must be"):
        TriCNN(("a", "b"), backbone=SMALL, dropout=-0.1)


def test_linear_head_has_one_layer_and_can_still_drop() -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(), seed=0)
    assert sum(p.numel() for p in net.head.parameters()) == 3 * 1024 * 2 + 2
    assert net.dropout == 0.4
    features = torch.rand(8, 3072, generator=torch.Generator().manual_seed(0))
    net.train()
    assert not torch.equal(net(features), net(features))  # what Monte-Carlo scoring draws from


def test_shared_weights_use_one_backbone() -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(), share_weights=True, seed=0).eval()
    assert len(net.branches) == 1
    image = triplets(1)
    image[:, 3:6] = image[:, 0:3]
    features = net.features(image).detach()
    assert torch.equal(features[:, :1024], features[:, 1024:2048])
    assert not torch.allclose(features[:, :1024], features[:, 2048:])


def test_batch_feature_norm_standardises_features_with_their_running_statistics() -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(), feature_norm="batch", dropout=0.0, seed=0)
    features = 1000.0 + 50.0 * torch.randn(64, 3072, generator=torch.Generator().manual_seed(0))
    net.train()
    assert net.head[0](features).std() == pytest.approx(1.0, abs=0.02)
    assert sum(p.numel() for p in net.head.parameters()) == 3072 * 2 + 2


def test_other_scales_and_sizes() -> None:
    net = TriCNN(("a", "b"), backbone=SMALL, hidden=(), magnifications=(20.0,), tile_px=96, seed=0).eval()
    assert net(triplets(2, size=96)[:, :3]).shape == (2, 2)
    assert net.num_features == 1024


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    one = TriCNN(("a", "b"), backbone=SMALL, hidden=(8,), seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    two = TriCNN(("a", "b"), backbone=SMALL, hidden=(8,), seed=5)
    other = TriCNN(("a", "b"), backbone=SMALL, hidden=(8,), seed=6)
    assert one.feature_fingerprint() == two.feature_fingerprint() != other.feature_fingerprint()
    assert torch.equal(one.head[0].weight, two.head[0].weight)
    assert not torch.equal(one.head[0].weight, other.head[0].weight)


def test_head_starts_as_keras_dense_does(paper_network: TriCNN) -> None:
    weight = paper_network.head[0].weight
    limit = (6 / (1536 + 4096)) ** 0.5  # Glorot uniform
    assert weight.abs().max() <= limit
    assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not paper_network.head[0].bias.any()


def test_fingerprint_follows_backbone_normalisation_and_magnifications_but_not_the_head(small: TriCNN) -> None:
    fingerprint = small.feature_fingerprint()
    assert len(fingerprint) == 64
    copied = copy.deepcopy(small)
    with torch.no_grad():
        copied.head[0].weight.add_(1.0)
    assert copied.feature_fingerprint() == fingerprint
    assert copied.to(memory_format=torch.channels_last).feature_fingerprint() == fingerprint
    with torch.no_grad():
        next(copied.branches[2].parameters())[0, 0, 0, 0] += 1e-3
    assert copied.feature_fingerprint() != fingerprint
    kwargs = {"backbone": SMALL, "hidden": (16,), "seed": 1}
    assert TriCNN(("x", "y"), **kwargs).feature_fingerprint() == fingerprint
    assert TriCNN(("x", "y"), normalization="unit", **kwargs).feature_fingerprint() != fingerprint
    assert TriCNN(("x", "y"), magnifications=(20, 10, 2.5), **kwargs).feature_fingerprint() != fingerprint


@torch.no_grad()
def test_torchscript_of_the_papers_network_gives_the_same_logits(paper_network: TriCNN) -> None:
    image = triplets(1)
    scripted = torch.jit.script(paper_network)
    torch.testing.assert_close(scripted(image), paper_network(image), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scripted(paper_network.features(image)), paper_network(image), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_scripted_file_carries_normalisation_and_frozen_features() -> None:
    net = TriCNN(("a", "b"), backbone="squeezenet1_1", hidden=(), frozen=True, seed=0).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    image = triplets(2)
    torch.testing.assert_close(loaded(image), net(image))
    torch.testing.assert_close(loaded.features(image), net.features(image))


@torch.no_grad()
def test_torch_export_with_a_dynamic_batch() -> None:
    small = TriCNN(("a", "b"), backbone="squeezenet1_1", hidden=(8,), seed=0).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(small, (triplets(2).float(),), dynamic_shapes=({0: batch},))
    image = triplets(5, seed=9).float()
    torch.testing.assert_close(program.module()(image), small(image))


@torch.no_grad()
def test_channels_last_reaches_the_convolutions(small: TriCNN) -> None:
    small.eval()
    image = triplets(2)
    expected = small(image)
    layouts = []
    net = copy.deepcopy(small).to(memory_format=torch.channels_last)
    for branch in net.branches:
        branch.register_forward_pre_hook(
            lambda _, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
    logits = net(image.to(memory_format=torch.channels_last))
    assert layouts == [True] * 3
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_half_precision_weights_take_raw_pixels(small: TriCNN) -> None:
    small.eval()
    image = triplets(2)
    logits = copy.deepcopy(small).to(torch.bfloat16)(image)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), small(image), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("shape", [(2, 3, 128, 128), (2, 9, 128), (2, 3, 3, 128, 128)])
def test_wrong_input_shape_is_named(small: TriCNN, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 9, H, W\).* but got \[2, "):
        small(torch.zeros(shape))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"classes": ["a"]}, "at least two names"),
        ({"classes": "ab"}, "at least two names"),
        ({"classes": ["a", ""]}, "at least two names"),
        ({"classes": ["a", "b", "a"]}, "classes must differ, but a stands more than once"),
        ({"hidden": (0,)}, "hidden must be a list of layer widths"),
        ({"magnifications": (10, 10)}, "magnifications must be different numbers above 0"),
        ({"magnifications": ()}, "magnifications must be different numbers above 0"),
        ({"feature_norm": "layer"}, "feature_norm must be 'none' or 'batch', but is 'layer'"),
        ({"pretrained_path": "nowhere.pt"}, r"there is no file 'nowhere\.pt'"),
    ],
)
def test_settings_out_of_range_are_refused(kwargs: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"classes": ["a", "b"], "backbone": SMALL, **kwargs}
    with pytest.raises(ConfigError, match=message):
        TriCNN(**settings)  # type: ignore[arg-type]


def test_stain_normalization_is_part_of_the_network_its_features_and_its_contract() -> None:
    settings = {"backbone": SMALL, "hidden": (), "seed": 3}
    plain = TriCNN(["a", "b"], **settings).eval()
    normalised = TriCNN(["a", "b"], stain_normalization=True, **settings).eval()
    image = stained_tiles(((0.65, 0.10), (0.70, 0.95), (0.29, 0.30)), count=1, size=128)
    expected = plain.features(MacenkoNormalize()(image))
    assert torch.equal(normalised.features(image), expected)
    assert (plain.features(image) - expected).norm() > 0.01 * expected.norm()
    assert normalised.feature_fingerprint() != plain.feature_fingerprint()
    with pytest.raises(CheckpointError, match="stain_normalization: the checkpoint has True, this network False"):
        plain.contract.load_state_dict(normalised.contract.state_dict())
    assert TriCNN.from_contract(normalised.contract.state_dict()).stain_normalization


def test_class_colors_travel_in_the_contract_and_may_differ() -> None:
    settings = {"backbone": "timm:mobilenetv3_small_050", "hidden": (), "seed": 3}
    coloured = TriCNN(["a", "b"], class_colors={"a": [200, 0, 0]}, **settings)
    assert TriCNN.from_contract(coloured.contract.state_dict()).class_colors == {"a": (200, 0, 0)}
    TriCNN(["a", "b"], **settings).contract.load_state_dict(coloured.contract.state_dict())


def test_frozen_backbones_stay_in_evaluation_mode_while_the_head_trains() -> None:
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", hidden=(), frozen=True, seed=3)
    network.branches[0].train()  # as if someone had switched it by hand
    assert network.train().training
    assert network.head.training
    assert not any(module.training for module in network.branches.modules())
    assert not network.eval().head.training


LITE = "timm:tf_efficientnet_lite0"


@torch.no_grad()
def test_dense_context_leaves_the_highest_magnification_whole() -> None:
    net = TriCNN(("a", "b"), hidden=(8,), context="dense", magnifications=(10, 40, 2.5), seed=0).eval()
    assert net.highest_scale == 1
    assert [len(branch.features) for branch in net.branches] == [23, 31, 23]
    assert net.branch_widths == (512, 512, 512)
    image = triplets(1)
    pooled = [
        net.branches[0].features(image[:, :3].float()).mean(dim=(2, 3)),
        net.branches[1].features(image[:, 3:6].float()).mean(dim=(2, 3)),
        net.branches[2].features(image[:, 6:].float()).mean(dim=(2, 3)),
    ]
    assert net.branches[0].features(image[:, :3].float()).shape == (1, 512, 5, 5)
    torch.testing.assert_close(net.features(image), torch.cat(pooled, dim=1))


@torch.no_grad()
def test_features_of_a_canvas_are_those_of_its_tiles() -> None:
    net = TriCNN(("a", "b"), backbone=LITE, hidden=(), context="dense", branch_dropout=0.5, seed=0).eval()
    assert net.branch_widths == (1280, 240, 240)
    assert net.num_features == 1760
    canvas = triplets(1, size=200)[:, :3]
    starts = torch.tensor([[x, y] for y in range(0, 73, 24) for x in (0, 8, 41, 72)])
    tiles = torch.cat([canvas[:, :, y : y + 128, x : x + 128] for x, y in starts.tolist()])
    expected = net.features(torch.cat([tiles] * 3, dim=1))
    assert net(torch.cat([tiles] * 3, dim=1)).shape == (16, 2)
    for scale, columns in ((1, slice(1280, 1520)), (2, slice(1520, 1760))):
        torch.testing.assert_close(net.dense_features(canvas, starts, scale), expected[:, columns])
    with pytest.raises(ConfigError, match="context='dense' and magnification 40 of"):
        net.dense_features(canvas, starts, 0)
    with pytest.raises(ConfigError, match="context='tile' and magnification 10 of"):
        TriCNN(("a", "b"), backbone=SMALL, hidden=()).dense_features(canvas, starts, 1)


@torch.no_grad()
def test_a_dense_network_can_be_scripted_and_exported() -> None:
    net = TriCNN(("a", "b"), backbone=LITE, hidden=(8,), context="dense", branch_dropout=0.5, seed=0).eval()
    image = triplets(3).float()
    torch.testing.assert_close(torch.jit.script(net)(image), net(image))
    program = torch.export.export(net, (image[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(image), net(image), rtol=1e-4, atol=1e-5)


def test_every_layer_of_a_dense_network_is_trained() -> None:
    net = TriCNN(("a", "b"), backbone=LITE, hidden=(), context="dense", seed=0).train()
    net(triplets(2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_dense_context_is_part_of_the_contract_and_the_fingerprint(tmp_path: Path) -> None:
    settings = {"backbone": LITE, "hidden": (), "seed": 3}
    tile, dense = TriCNN(("a", "b"), **settings), TriCNN(("a", "b"), context="dense", **settings)
    assert TriCNN.from_contract(dense.contract.state_dict()).context == "dense"
    assert dense.feature_fingerprint() != tile.feature_fingerprint()
    with pytest.raises(CheckpointError, match=r"context: the checkpoint has 'dense', this network 'tile' \(the bran"):
        tile.contract.load_state_dict(dense.contract.state_dict())
    start = save_checkpoint(tmp_path / "tile.pt", tile)
    with pytest.raises(CheckpointError, match=r"tile\.pt is a TriCNN of another kind: context: 'tile' there"):
        TriCNN(("a", "b"), context="dense", pretrained_path=start, **settings)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"context": "sparse"}, "context must be 'tile' or 'dense', but is 'sparse'"),
        ({"share_weights": True}, "share_weights=True does not go with it"),
        ({"stain_normalization": True}, "stain_normalization=True changes each tile by its own stain"),
        ({"magnifications": (40,)}, "below the highest, but there is only one"),
        ({"backbone": SMALL}, r"but the backbone is 'torchvision:shufflenet_v2_x0_5'"),
    ],
)
def test_what_has_no_dense_form_is_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TriCNN(["a", "b"], **{"context": "dense", "backbone": LITE, **kwargs})  # type: ignore[arg-type]
