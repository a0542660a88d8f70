# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader, CheckpointSaver

from tral_monai.errors import CheckpointError, OutputError
from tral_monai.networks.checkpoint import load_checkpoint, read_contract, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN

SMALL = "torchvision:shufflenet_v2_x0_5"


def build(**changes: object) -> TriCNN:
    settings: dict[str, object] = {
        "classes": ("Stroma", "Muscle", "Blood"),
        "backbone": SMALL,
        "hidden": (16,),
        "normalization": {"mean": [200.0, 150.0, 180.0], "std": [40.0, 50.0, 45.0]},
        "dropout": 0.25,
        "seed": 1,
    }
    return TriCNN(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (2, 9, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_network_comes_back_from_its_file_alone(tmp_path: Path, image: torch.Tensor) -> None:
    network = build().eval()
    path = save_checkpoint(tmp_path / "model.pt", network)
    state = torch.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert torch.equal(loaded(image), network(image))
    assert loaded.contract.state_dict() == network.contract.state_dict()
    assert loaded.feature_fingerprint() == network.feature_fingerprint()
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    assert load_checkpoint(path, frozen=True).frozen


def test_the_contract_says_what_the_weights_are_for(tmp_path: Path) -> None:
    contract = read_contract(save_checkpoint(tmp_path / "model.pt", build()))
    version = contract.pop("package_version")
    assert isinstance(version, str)
    assert contract == {
        "format": "tral_monai.TriCNN",
        "format_version": 1,
        "classes": ["Stroma", "Muscle", "Blood"],
        "backbone": SMALL,
        "hidden": [16],
        "dropout": 0.25,
        "normalization": {"mean": [200.0, 150.0, 180.0], "std": [40.0, 50.0, 45.0]},
        "magnifications": [40.0, 10.0, 2.5],
        "tile_px": 128,
        "context": "tile",
        "share_weights": False,
        "branch_dropout": 0.0,
        "stain_normalization": False,
        "class_colors": {},
        "feature_norm": "none",
        "frozen": False,
    }


def test_a_checkpoint_from_before_dense_context_is_loaded_as_what_it_was(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model.pt", build())
    content = torch.load(path, weights_only=True)
    del content["contract"]["context"]
    torch.save(content, path)
    loaded = load_checkpoint(path, expect=TriCNN)
    assert loaded.context == read_contract(path)["context"] == "tile"
    loaded.contract.load_state_dict(content["contract"])


def run_saver(folder: Path, network: TriCNN) -> Path:
    engine = Engine(lambda *_: None)
    saver = CheckpointSaver(
        save_dir=str(folder),
        save_dict={"model": network, "contract": network.contract},
        save_final=True,
        final_filename="model.pt",
    )
    saver.attach(engine)
    engine.run([0], max_epochs=1)
    return folder / "model.pt"


def run_loader(path: Path, network: TriCNN) -> None:
    engine = Engine(lambda *_: None)
    CheckpointLoader(load_path=str(path), load_dict={"model": network, "contract": network.contract}).attach(engine)
    engine.run([0], max_epochs=1)


@torch.no_grad()
def test_monais_handlers_write_and_read_the_same_file(tmp_path: Path, image: torch.Tensor) -> None:
    network = build(seed=1).eval()
    path = run_saver(tmp_path, network)
    other = build(seed=2).eval()
    assert not torch.equal(other(image), network(image))
    run_loader(path, other)
    assert torch.equal(other(image), network(image))
    assert torch.equal(load_checkpoint(path)(image), network(image))
    third = build(seed=3).eval()
    run_loader(save_checkpoint(tmp_path / "ours.pt", network), third)
    assert torch.equal(third(image), network(image))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": ("Muscle", "Stroma", "Blood")},
            r"classes: the checkpoint has \['Stroma', 'Muscle', 'Blood'\], "
            r"this network \['Muscle', 'Stroma', 'Blood'\] \(the outputs would be read as other classes\)",
        ),
        (
            {"normalization": "raw255"},
            r"trained with normalisation mean \[200\.0, .* \[0\.0, 0\.0, 0\.0\]; build it with",
        ),
        ({"magnifications": (20, 10, 2.5)}, r"magnifications: the checkpoint has \[40\.0, 10\.0, 2\.5\]"),
        ({"tile_px": 96}, "tile_px: the checkpoint has 128, this network 96"),
    ],
)
def test_monais_loader_refuses_a_checkpoint_for_another_network(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = run_saver(tmp_path, build())
    with pytest.raises(CheckpointError, match=message):
        run_loader(path, build(**changes))


def test_every_difference_is_named_at_once() -> None:
    saved = build().contract.state_dict()
    other = build(classes=("a", "b"), backbone="torchvision:resnet18", normalization="unit", hidden=(), dropout=0.9)
    with pytest.raises(CheckpointError) as caught:
        other.contract.load_state_dict(saved)
    message = str(caught.value)
    for part in ("classes:", "backbone:", "normalization:", "hidden:", "choose another checkpoint"):
        assert part in message
    assert "dropout:" not in message


def test_dropout_and_frozen_may_differ() -> None:
    build(dropout=0.1, frozen=True).contract.load_state_dict(build(dropout=0.3).contract.state_dict())


def test_weights_alone_cannot_bring_another_normalisation() -> None:
    weights = build().state_dict()
    with pytest.raises(CheckpointError, match=r"mean \[200\.0, 150\.0, 180\.0\], but this network has \["):
        build(normalization="imagenet").load_state_dict(weights)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(1)}, r"must hold 'model' and 'contract', but holds \['weights'\]"),
        ({"model": {}, "contract": {"classes": ["a"]}}, "must be a mapping with format 'tral_monai.TriCNN'"),
        ({"model": {}, "contract": {"format": "tral_monai.TriCNN", "format_version": 99}}, "format version 99"),
        (
            {"model": {}, "contract": {"format": "tral_monai.TriCNN", "format_version": 1}},
            "lacks backbone, branch_dropout, class_colors, classes",
        ),
        ([1, 2], "holds a list; expected a dict"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_contract_of_an_unknown_backbone_is_a_checkpoint_error(tmp_path: Path) -> None:
    contract = build().contract.state_dict() | {"backbone": "timm:of_the_future"}
    torch.save({"model": {}, "contract": contract}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no network can be built from .* contract: unknown backbone"):
        load_checkpoint(tmp_path / "model.pt")


def test_weights_that_contradict_their_contract_are_refused(tmp_path: Path) -> None:
    network = build()
    torch.save(
        {"model": build(hidden=(8,)).state_dict(), "contract": network.contract.state_dict()}, tmp_path / "model.pt"
    )
    with pytest.raises(CheckpointError, match=r"the weights in model\.pt do not fit the contract in it"):
        load_checkpoint(tmp_path / "model.pt")


def test_missing_file_and_wrong_suffix(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_contract(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"must be a \.pt or \.pth file, but is 'model\.bin'"):
        save_checkpoint(tmp_path / "model.bin", build())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "model.pt", build())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, build(seed=2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model.pt", build())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a file may not grow further, as on a full disk
    try:
        with pytest.raises(OutputError, match=r"^cannot write model\.pt: File too large; check that the folder"):
            save_checkpoint(path, build(seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_file_with_hidden_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "owned"), "w"))  # type: ignore[return-value]

    torch.save({"model": Evil(), "contract": {}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"cannot read model\.pt as weights"):
        load_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "owned").exists()
