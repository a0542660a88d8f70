# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.transforms.stained import stained_tiles
from tral_monai.errors import ConfigError
from tral_monai.transforms.stain_profile import (
    MacenkoSettings,
    StainProfile,
    estimate_stains,
    optical_density,
    separate,
)

VECTORS = ((0.65, 0.10), (0.70, 0.95), (0.29, 0.30))  # of a made-up laboratory, far from the reference


def degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angles between the columns of (..., 3, 2)."""
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-2)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def macenko_of_one_image(rgb: np.ndarray) -> np.ndarray:
    """The published algorithm for one image in plain numpy, (P, 3) to (3, 2)."""
    density = -np.log(np.clip(rgb.astype(float), 1, 240) / 240)
    tissue = density[(density > 0.345).any(axis=1)]
    axes = np.linalg.eigh(np.cov(tissue.T))[1][:, [2, 1]]
    axes = axes * np.where(axes[0] < 0, -1, 1)
    angles = np.arctan2(tissue @ axes[:, 1], tissue @ axes[:, 0])
    limits = np.percentile(angles, [1, 99])
    found = axes @ np.stack([np.cos(limits), np.sin(limits)])
    return found if found[0, 0] > found[0, 1] else found[:, ::-1]


def colon_tiles(per_class: int) -> torch.Tensor:
    if "TRAL_DATA" not in os.environ:
        pytest.skip("TRAL_DATA does not point to the data")
    folder = Path(os.environ["TRAL_DATA"]) / "colorectal_tiles"
    if not folder.is_dir():
        pytest.skip("colorectal_tiles is not among the data")
    files = [f for c in sorted(folder.iterdir()) if c.is_dir() for f in sorted(c.glob("*.jpg"))[:per_class]]
    return torch.stack([torch.from_numpy(np.asarray(Image.open(f).convert("RGB")).copy()) for f in files])


def test_optical_density_by_hand() -> None:
    rgb = torch.tensor([240.0, 24.0, 255.0, 0.0])
    expected = [0.0, np.log(10.0), 0.0, np.log(240.0)]  # glass brighter than 240 counts as 240, black as 1
    assert optical_density(rgb, 240.0).tolist() == pytest.approx(expected)


def test_known_stains_are_found() -> None:
    tiles = stained_tiles(VECTORS, count=3, scales=1, size=96)
    estimate = estimate_stains(tiles.flatten(2).float(), MacenkoSettings())
    assert estimate.usable.all()
    assert (degrees(estimate.vectors, torch.tensor(VECTORS).expand(3, 3, 2)) < 1.5).all()
    torch.testing.assert_close(estimate.vectors.norm(dim=1), torch.ones(3, 2))
    assert estimate.concentrations[:, 0].tolist() == pytest.approx([1.5] * 3, rel=0.05)
    assert estimate.concentrations[:, 1].tolist() == pytest.approx([0.8] * 3, rel=0.05)


def test_glass_does_not_change_what_counts_as_full_stain() -> None:
    tissue = stained_tiles(VECTORS, count=1, scales=1, size=96)
    thin = stained_tiles(VECTORS, count=1, scales=1, size=96, glass=0.9)
    both = [estimate_stains(t.flatten(2).float(), MacenkoSettings()) for t in (tissue, thin)]
    torch.testing.assert_close(both[1].concentrations, both[0].concentrations, rtol=0.05, atol=0)


def test_separating_amounts_is_exact() -> None:
    vectors = torch.tensor(VECTORS).unsqueeze(0)
    amounts = torch.rand(1, 2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(separate(vectors @ amounts, vectors), amounts, rtol=1e-4, atol=1e-5)


def test_a_batch_gives_what_single_images_give_and_numpy_gives() -> None:
    tiles = colon_tiles(per_class=3)
    rgb = tiles.flatten(1, 2).mT.float()
    batch = estimate_stains(rgb, MacenkoSettings()).vectors
    single = torch.cat([estimate_stains(r[None], MacenkoSettings()).vectors for r in rgb])
    assert degrees(batch, single).max() < 0.05
    plain = torch.stack([torch.from_numpy(macenko_of_one_image(t.flatten(0, 1).numpy()).copy()) for t in tiles])
    assert degrees(batch, plain).max() < 0.05


def test_real_tiles_agree_with_monai_but_for_its_order_of_stains() -> None:
    from monai.apps.pathology.transforms.stain.array import ExtractHEStains

    tiles = colon_tiles(per_class=8)
    settings = MacenkoSettings(channels="all", transparent_below=0.15)
    ours = estimate_stains(tiles.flatten(1, 2).mT.float(), settings).vectors
    monai = torch.stack([torch.from_numpy(ExtractHEStains()(t.numpy())) for t in tiles])
    # MONAI compares red with blue as if these were colours, not densities: its first column is eosin, and it lets
    # eigenvectors point either way, which breaks the percentiles of single tiles.
    monai = monai.flip(2) * monai.sum(dim=1, keepdim=True).sign().flip(2)
    difference = degrees(ours, monai)
    assert difference.quantile(0.5) < 0.3
    assert difference.quantile(0.9) < 1.0
    assert degrees(ours, monai.flip(2)).quantile(0.1) > 5


def test_nothing_is_estimated_from_glass_or_from_one_stain() -> None:
    glass = torch.full((1, 3, 4096), 243.0)
    dirt = glass.clone()
    dirt[:, :, :40] = 90.0  # 1 %
    eosin = stained_tiles(((0.1, 0.1), (0.95, 0.95), (0.3, 0.3)), count=1, scales=1).flatten(2).float()
    tissue = stained_tiles(VECTORS, count=1, scales=1).flatten(2).float()
    black, white = torch.zeros_like(glass), torch.full_like(glass, 255.0)
    estimate = estimate_stains(torch.cat([glass, dirt, eosin, black, white, tissue]), MacenkoSettings())
    assert estimate.usable.tolist() == [False, False, False, False, False, True]
    assert estimate.vectors.isfinite().all()
    assert estimate.concentrations.isfinite().all()


def test_profile_of_a_slide_and_of_a_file(tmp_path: Path) -> None:
    tiles = stained_tiles(VECTORS, count=4)
    profile = StainProfile.fit(tiles)
    assert (degrees(torch.tensor(profile.vectors), torch.tensor(VECTORS)) < 1.5).all()
    Image.fromarray(tiles[0, :3].permute(1, 2, 0).numpy()).save(tmp_path / "reference.png")
    from_file = StainProfile.from_image_file(tmp_path / "reference.png")
    from_tensor = StainProfile.fit(tiles[:1, :3])
    np.testing.assert_allclose(from_file.vectors, from_tensor.vectors, atol=1e-5)
    np.testing.assert_allclose(from_file.concentrations, from_tensor.concentrations, atol=1e-5)
    with pytest.raises(ConfigError, match="no stain profile can be fitted: too little tissue"):
        StainProfile.fit(torch.full((1, 9, 16, 16), 244, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"percentile": 60}, "percentile must be between 0.0 and 50.0, but is 60"),
        ({"transmitted_light": 300}, "transmitted_light must be between"),
        ({"transparent_below": -1}, "transparent_below must be between"),
        ({"min_tissue": 2}, "min_tissue must be between"),
        ({"channels": "most"}, "channels must be 'any' or 'all', but is 'most'"),
    ],
)
def test_settings_out_of_range_are_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MacenkoSettings(**kwargs)  # type: ignore[arg-type]


def test_profiles_have_to_be_complete() -> None:
    with pytest.raises(ConfigError, match="must be 3 rows"):
        StainProfile(((1, 2), (3, 4)))
    with pytest.raises(ConfigError, match="two numbers above 0"):
        StainProfile(concentrations=(1, 0))
