# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tests.inference.colour_slides import ColourNet, break_tile, slide_pixels, write_slide
from tral_monai.errors import ConfigError, SlideError
from tral_monai.inference.features_writer import FeaturesWriter
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_mapper import TissueMapper


class Featured(ColourNet):
    """Its features are the mean colour of the tile at 40x; the head tells the class from it."""

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :3].float().mean(dim=(2, 3))

    def head(self, features: torch.Tensor) -> torch.Tensor:
        return -self.scale * torch.cdist(features, self.colours) ** 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image if image.ndim == 2 else self.features(image))


class ByHand(TissueMapper):
    """Streams three tiles in an order of its own, then goes on as ever."""

    order = ((1, 0), (0, 1), (0, 0))
    fails = False

    def map_slide(self, slide: Any, *, on_tiles: Any = None, want_features: bool = False, **keywords: Any) -> Any:
        assert want_features
        for row, column in self.order:
            on_tiles(
                MappedTiles(
                    np.array([row]),
                    np.array([column]),
                    np.array([[64 + 128 * column, 64 + 128 * row]]),
                    np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32),
                    np.array([[row, column, 0.5]], dtype=np.float32),
                )
            )
        if self.fails:
            raise SlideError("s.tif: broken")
        return super().map_slide(slide, **keywords)


def run(folder: Path, slide: Path, mapper: TissueMapper, **settings: Any) -> Path:
    writer = FeaturesWriter(**settings)
    SlideEvaluator(SlideListDataset(slide), mapper, folder, val_handlers=[writer]).run()
    return folder / "s_features.h5"


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "s.tif", slide_pixels(), mpp=0.25)


def test_rows_and_attributes_by_hand(slide: Path, tmp_path: Path) -> None:
    with h5py.File(run(tmp_path / "a", slide, ByHand(Featured(), stride_px=96), probabilities=True)) as file:
        assert file["features"][:].tolist() == [[0, 0, 0.5], [0, 1, 0.5], [1, 0, 0.5]]
        assert file["coords"][:].tolist() == [[0, 0], [128, 0], [0, 128]]
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int64)
        np.testing.assert_allclose(file["probabilities"][2], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
        attributes = dict(file["coords"].attrs)
        assert file.attrs["slide"] == "s.tif"
        assert len(file.attrs["weights_sha256"]) == 64
        assert file.attrs["classes"].tolist() == ["Stroma", "Muscle", "Blood", "Damaged"]
    assert attributes == {
        "name": "s",
        "patch_size": 128,
        "patch_level": 0,
        "patch_size_level0": 128,
        "overlap": 32,
        "target_magnification": 40.0,
        "level0_magnification": 40.0,
        "mpp": 0.25,
        "level0_mpp": 0.25,
        "level0_width": 2048,
        "level0_height": 1536,
    }


def test_the_file_does_not_depend_on_the_order_of_work(slide: Path, tmp_path: Path) -> None:
    first, second = ByHand(Featured()), ByHand(Featured())
    second.order = tuple(reversed(first.order))
    files = [run(tmp_path / name, slide, mapper) for name, mapper in (("a", first), ("b", second))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_features_of_a_slide_lie_where_its_tissue_lies(slide: Path, tmp_path: Path) -> None:
    mapper = TissueMapper(Featured())
    with h5py.File(run(tmp_path / "a", slide, mapper, dtype="float16")) as file:
        features, coords = file["features"][:], file["coords"][:]
        assert "probabilities" not in file
    assert features.dtype == np.float16
    assert len(features) > 50
    assert (coords % 128 == 0).all()
    assert (np.diff(coords[:, 1] * 10_000 + coords[:, 0]) > 0).all()  # by row, then by column
    pixels = slide_pixels()
    middles = pixels[coords[:, 1] + 64, coords[:, 0] + 64]
    assert np.abs(features - middles.astype(np.float32)).max() < 8  # JPEG


def test_a_tile_that_cannot_be_decoded_has_no_row(slide: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "a", slide, TissueMapper(Featured()))
    break_tile(slide, level=0, tile=18)  # 256 px wide: rows 4 and 5, columns 4 and 5
    with h5py.File(whole) as file, h5py.File(run(tmp_path / "b", slide, TissueMapper(Featured()))) as damaged:
        lost = {tuple(corner) for corner in file["coords"][:].tolist()} - {
            tuple(corner) for corner in damaged["coords"][:].tolist()
        }
    assert lost
    assert lost <= {(512, 512), (640, 512), (512, 640), (640, 640)}


def test_no_tissue_gives_no_rows(tmp_path: Path) -> None:
    glass = write_slide(tmp_path / "s.tif", slide_pixels(("....",) * 4))
    with h5py.File(run(tmp_path / "a", glass, TissueMapper(Featured()))) as file:
        assert (file["features"].shape, file["coords"].shape) == ((0, 0), (0, 2))


def test_a_slide_that_fails_leaves_nothing(slide: Path, tmp_path: Path) -> None:
    mapper = ByHand(Featured())
    mapper.fails = True
    with pytest.raises(SlideError, match=r"s\.tif: broken"):
        run(tmp_path / "a", slide, mapper)
    assert list((tmp_path / "a").iterdir()) == []


def test_settings_are_checked() -> None:
    engine: Any = SimpleNamespace(mapper=SimpleNamespace(tile_px=512, classes=()))
    with pytest.raises(ConfigError, match="SimpleNamespace has no stride_px, magnifications; leave the writer"):
        FeaturesWriter().attach(engine)
    with pytest.raises(ConfigError, match="dtype must be one of .* but is 'float64'"):
        FeaturesWriter(dtype="float64")


def test_a_network_without_features_is_refused_when_the_run_is_put_together(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'features' and 'head', such as a TriCNN, but ColourNet lacks them"):
        run(tmp_path / "a", slide, TissueMapper(ColourNet()))
