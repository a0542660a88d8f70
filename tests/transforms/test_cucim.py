# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.transforms.stained import stained_tiles
from tests.transforms.test_stain_profile import VECTORS
from tral_monai.errors import ConfigError, MissingExtraError
from tral_monai.transforms import cucim
from tral_monai.transforms.augment import AugmentedPrepareBatch
from tral_monai.transforms.geometry import ALL, RandDihedral, apply_dihedral
from tral_monai.transforms.stain_jitter import RandStainJitter
from tral_monai.transforms.stain_normalize import MacenkoNormalize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_auto_works_in_torch_on_the_cpu_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cucim, "_said", set())
    image = stained_tiles(VECTORS, count=8)
    with caplog.at_level(logging.INFO, logger="tral_monai.transforms.cucim"):
        for backend in ("auto", "torch"):
            dihedral, normalize = RandDihedral(backend=backend), MacenkoNormalize(backend=backend)
            assert torch.equal(dihedral(image, generator()), RandDihedral()(image, generator()))
            assert torch.equal(normalize(image), MacenkoNormalize()(image))
    assert [r.getMessage() for r in caplog.records] == [
        "transforms run in torch: the batch is on cpu, cuCIM works on NVIDIA GPUs only"
    ]


def test_cucim_asked_for_and_not_possible_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    image = stained_tiles(VECTORS)
    with pytest.raises(ConfigError, match=r"backend='cucim' cannot be used: the batch is on cpu.*use backend='auto'"):
        RandDihedral(backend="cucim")(image, generator())
    with pytest.raises(ConfigError, match="backend='cucim' cannot be used"):
        MacenkoNormalize(backend="cucim")(image)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tral_monai\[cucim\]'"):
        cucim.uses_cucim("cucim", torch.device("cuda:0"))


@pytest.mark.parametrize("element", ALL)
def test_the_steps_for_cucim_make_each_symmetry(element: int) -> None:
    image = np.arange(3 * 4 * 4).reshape(1, 3, 4, 4)
    operations = {
        "turn": lambda a: np.rot90(a, 1, (2, 3)),  # the axes and directions that cuCIM is called with
        "vertical": lambda a: np.flip(a, (2,)),
        "horizontal": lambda a: np.flip(a, (3,)),
    }
    moved = image
    for step in cucim.dihedral_steps(element):
        moved = operations[step](moved)
    expected = apply_dihedral(torch.from_numpy(image), torch.tensor([element]))
    np.testing.assert_array_equal(moved, expected.numpy())


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    device = torch.device("cuda", torch.cuda.current_device())
    reason = cucim.cucim_unusable(device)
    if reason is not None:
        pytest.skip(reason)
    return device


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_geometry_gives_the_same_pixels_on_cpu_gpu_and_through_cucim(gpu: torch.device, dtype: torch.dtype) -> None:
    image = stained_tiles(VECTORS, count=64).to(dtype)
    for element in ALL:
        elements = torch.full((64,), element)
        assert torch.equal(cucim.dihedral_cucim(image.to(gpu), elements).cpu(), apply_dihedral(image, elements))
    expected = RandDihedral(probability=0.8)(image, generator(2))
    for backend in ("torch", "cucim", "auto"):
        moved = RandDihedral(probability=0.8, backend=backend)(image.to(gpu), generator(2))
        assert moved.device == gpu
        assert torch.equal(moved.cpu(), expected)
    last = image.to(gpu).to(memory_format=torch.channels_last)
    assert torch.equal(RandDihedral(probability=0.8, backend="cucim")(last, generator(2)).cpu(), expected)


@pytest.mark.gpu
def test_stain_normalisation_is_the_same_on_cpu_gpu_and_through_cucim(gpu: torch.device) -> None:
    image = torch.cat([stained_tiles(VECTORS, count=16), torch.full((2, 9, 64, 64), 245, dtype=torch.uint8)])
    expected = MacenkoNormalize()(image).int()
    for backend in ("torch", "cucim"):
        for per in ("triplet", "tile"):
            expected = MacenkoNormalize(per=per)(image).int()
            normalised = MacenkoNormalize(per=per, backend=backend)(image.to(gpu)).cpu().int()
            assert (normalised - expected).abs().max() <= 1
            assert torch.equal(normalised[-2:], image[-2:].int())


@pytest.mark.gpu
def test_a_seed_means_the_same_on_cpu_and_gpu(gpu: torch.device) -> None:
    image = stained_tiles(VECTORS, count=32)
    transforms = [RandDihedral(backend="auto"), RandStainJitter()]
    on_cpu = AugmentedPrepareBatch(transforms, seed=5)({"image": image}, device="cpu")[0]
    on_gpu = AugmentedPrepareBatch(transforms, seed=5)({"image": image}, device=gpu, non_blocking=True)[0]
    assert on_gpu.device == gpu
    assert (on_gpu.cpu().int() - on_cpu.int()).abs().max() <= 1
