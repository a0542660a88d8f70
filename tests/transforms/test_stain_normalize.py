# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tests.transforms.stained import stained_tiles
from tests.transforms.test_stain_profile import VECTORS, colon_tiles
from tral_monai.errors import ConfigError
from tral_monai.transforms.stain_normalize import MacenkoNormalize
from tral_monai.transforms.stain_profile import StainProfile

REFERENCE = StainProfile()


def reference_tiles(**kwargs: object) -> torch.Tensor:
    return stained_tiles(REFERENCE.vectors, strength=REFERENCE.concentrations, **kwargs)  # type: ignore[arg-type]


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.float() - b.float()).abs()


def test_tiles_of_another_laboratory_come_out_in_the_references_colours() -> None:
    theirs = stained_tiles(VECTORS, count=3, size=96)
    wanted = reference_tiles(count=3, size=96)  # the same amounts of stain in every pixel
    assert difference(theirs, wanted).mean() > 20
    normalised = MacenkoNormalize()(theirs)
    assert normalised.dtype == torch.uint8
    assert difference(normalised, wanted).mean() < 3
    assert difference(normalised, wanted).flatten(1).quantile(0.99) < 12


def test_reference_tiles_stay_as_they_are() -> None:
    tiles = reference_tiles(count=2, size=96)
    assert difference(MacenkoNormalize(pixel_step=1)(tiles), tiles).mean() < 2
    exact = MacenkoNormalize(source=REFERENCE)(tiles)
    assert difference(exact, tiles).max() <= 1  # rounding to uint8


def test_what_cannot_be_estimated_stays_to_the_bit() -> None:
    glass = torch.randint(235, 256, (1, 9, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    white = torch.full_like(glass, 255)
    tissue = stained_tiles(VECTORS, count=1)
    normalised = MacenkoNormalize()(torch.cat([glass, tissue, white]))
    assert torch.equal(normalised[0], glass[0])
    assert torch.equal(normalised[2], white[0])
    assert difference(normalised[1], tissue[0]).mean() > 10


def test_samples_do_not_influence_each_other() -> None:
    one, other = stained_tiles(VECTORS, count=1), reference_tiles(count=1, seed=5)
    together = MacenkoNormalize()(torch.cat([one, other]))
    assert torch.equal(together[:1], MacenkoNormalize()(one))
    assert torch.equal(together[1:], MacenkoNormalize()(other))


def test_all_tiles_of_a_triplet_get_the_same_colours() -> None:
    triplet = stained_tiles(VECTORS, count=1)
    triplet[:, :3, :32] = 244  # much glass at 40x only
    pixel = torch.tensor([150, 90, 140], dtype=torch.uint8)
    for scale in range(3):
        triplet[0, 3 * scale : 3 * scale + 3, 63, 63] = pixel
    joint = MacenkoNormalize()(triplet)[0, :, 63, 63].view(3, 3)
    assert torch.equal(joint[0], joint[1])
    assert torch.equal(joint[0], joint[2])
    alone = MacenkoNormalize(per="tile")(triplet)
    for scale in range(3):
        tile = triplet[:, 3 * scale : 3 * scale + 3]
        assert torch.equal(alone[:, 3 * scale : 3 * scale + 3], MacenkoNormalize()(tile))


def test_one_profile_per_slide_is_one_map_of_colours() -> None:
    slide = stained_tiles(VECTORS, count=4, size=96)
    normalised = MacenkoNormalize(source=StainProfile.fit(slide))(slide)
    assert difference(normalised, reference_tiles(count=4, size=96)).mean() < 3
    # The map is the same for a tile of the slide that says little about its stains.
    mapped = MacenkoNormalize(source=StainProfile.fit(slide))(slide[:1, :, :1, :1])
    assert torch.equal(mapped, normalised[:1, :, :1, :1])


def test_float_and_uint8_agree() -> None:
    tiles = stained_tiles(VECTORS)
    floats = MacenkoNormalize()(tiles.float())
    assert floats.dtype == torch.float32
    assert 0 <= floats.min() <= floats.max() <= 255
    assert torch.equal(floats.round().to(torch.uint8), MacenkoNormalize()(tiles))
    assert MacenkoNormalize()(tiles.half()).dtype == torch.float16


def test_real_tiles_agree_with_monai_where_tissue_fills_them() -> None:
    from monai.apps.pathology.transforms.stain.array import NormalizeHEStains

    tiles = colon_tiles(per_class=20)
    filled = (-((tiles.float().clamp(1, 240) / 240).log()) > 0.15).all(dim=3).flatten(1).float().mean(dim=1) > 0.9
    tiles = tiles[filled]
    assert len(tiles) >= 5
    settings = {"channels": "all", "transparent_below": 0.15}
    ours = MacenkoNormalize(pixel_step=1, settings=settings)(tiles.permute(0, 3, 1, 2))
    # MONAI's stains come in the other order (see test_stain_profile), so its target is given in that order, too.
    swapped = [[row[1], row[0]] for row in REFERENCE.vectors]
    monai = NormalizeHEStains(target_he=swapped, max_cref=REFERENCE.concentrations[::-1])
    theirs = torch.stack([torch.from_numpy(monai(t.numpy())).permute(2, 0, 1) for t in tiles])
    per_tile = difference(ours, theirs).flatten(1).mean(dim=1)
    assert per_tile.median() < 1.5
    assert per_tile.quantile(0.9) < 3


def test_settings_from_a_config() -> None:
    target = {"vectors": [[0.65, 0.1], [0.7, 0.95], [0.29, 0.3]], "concentrations": [1.5, 0.8]}
    assert MacenkoNormalize(target, settings={"percentile": 2.0}).settings.percentile == 2.0
    assert MacenkoNormalize(target).target.concentrations == [1.5, 0.8]
    with pytest.raises(ConfigError, match=r"must have vectors and concentrations, but has \['he'\]"):
        MacenkoNormalize({"he": []})
    with pytest.raises(ConfigError, match="per must be 'triplet' or 'tile', but is 'slide'"):
        MacenkoNormalize(per="slide")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pixel_step must be at least 1, but is 0"):
        MacenkoNormalize(pixel_step=0)
    with pytest.raises(ConfigError, match=r"expected \(B, 3 \* scales, H, W\) RGB"):
        MacenkoNormalize()(torch.zeros(4, 128))
