# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer

from tests.inference.colour_slides import PATTERN, ColourNet, break_tile, slide_pixels, write_slide
from tests.inference.early_exit.small_networks import random_gate, small_network
from tral_monai.errors import CheckpointError, ConfigError, SlideReadError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.geojson_writer import class_annotations
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.slide_window import SlideWindow
from tral_monai.inference.tissue_mapper import TissueMapper
from tral_monai.slides.canvases import CanvasReader
from tral_monai.slides.slide import Slide, open_slide
from tral_monai.slides.tissue import TissueMask

# Values of the map: background first, then the network's classes in order, then undefined and not analysed.
VALUE = {".": 0, "S": 1, "M": 2, "B": 3, "D": 4, "U": 5, "N": 6}
# The paper's threshold cuts plain colours exactly at their borders; the default smooths and fills holes.
EXACT: dict[str, Any] = {"tissue_method": "paper"}


def values(pattern: tuple[str, ...]) -> list[list[int]]:
    return [[VALUE[character] for character in row] for row in pattern]


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "colours.tif", slide_pixels())


@pytest.mark.parametrize(("num_workers", "read_ahead"), [(0, 0), (1, 2), (2, 2), (3, 0)])
def test_the_map_is_the_pattern(slide_path: Path, num_workers: int, read_ahead: int) -> None:
    mapper = TissueMapper(ColourNet(), num_workers=num_workers, read_ahead=read_ahead, keep_probabilities=True, **EXACT)
    with open_slide(slide_path) as slide:
        tissue = mapper.map_slide(slide)
    assert tissue.class_index.tolist() == values(PATTERN)
    tiles = sum(character != "." for row in PATTERN for character in row)
    assert tissue.tissue_tiles == tiles
    assert tissue.tissue_mm2() == pytest.approx(tiles * 0.032**2)  # 128 px of 0.25 um are 32 um
    assert tissue.areas_mm2()["Blood"] == pytest.approx(9 * 0.032**2)
    assert np.isnan(tissue.confidence[0, 0])
    assert tissue.confidence[2, 2] > 0.8
    assert tissue.probabilities is not None
    assert tissue.probabilities.shape == (12, 16, 4)
    assert tissue.probabilities[2, 2].argmax() == 0
    assert np.isnan(tissue.probabilities[0, 0]).all()
    assert set(tissue.seconds) == {"mask", "model", "wait_for_pixels", "total"}


@pytest.mark.parametrize(("mpp", "cell_px"), [(0.5, 64), (0.2, 160)])
def test_a_scan_at_another_magnification_gives_the_same_map(tmp_path: Path, mpp: float, cell_px: int) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels(cell_px=cell_px), mpp=mpp)
    with open_slide(path) as slide:
        tissue = TissueMapper(ColourNet(), **EXACT).map_slide(slide)
    assert tissue.class_index.tolist() == values(PATTERN)
    assert tissue.grid.step_level0 == pytest.approx(cell_px)
    assert tissue.areas_mm2()["Blood"] == pytest.approx(9 * 0.032**2)


def test_a_stride_of_half_a_tile_gives_four_times_the_pixels(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        tissue = TissueMapper(ColourNet(), stride_px=64, **EXACT).map_slide(slide)
    assert tissue.class_index.shape == (24, 32)
    # Tiles around the middle of a quarter of a cell: inside of a class they see that class alone.
    assert tissue.class_index[6, 6] == VALUE["S"]
    assert tissue.class_index[14, 19] == VALUE["B"]


def test_uncertain_tiles_are_undefined_and_the_rule_can_be_turned_off(slide_path: Path) -> None:
    unsure = ColourNet(scale=1e-5)
    with open_slide(slide_path) as slide:
        undefined = TissueMapper(unsure, **EXACT).map_slide(slide)
        defined = TissueMapper(unsure, undefined_below=0.0, **EXACT).map_slide(slide)
    tissue = np.array(values(PATTERN)) > 0
    assert (undefined.class_index[tissue] == VALUE["U"]).all()
    assert undefined.confidence[2, 2] == pytest.approx(0.25, abs=0.01)  # four classes, all alike
    assert defined.class_index.tolist() == values(PATTERN)


def test_damaged_needs_to_be_sure(tmp_path: Path) -> None:
    pattern = tuple(row.replace("B", "D") for row in PATTERN)
    path = write_slide(tmp_path / "s.tif", slide_pixels(pattern))
    # Damaged lies 127 from muscle: at 0.05 it gets nearly all, at 0.014 it gets between 0.6 and 0.9.
    with open_slide(path) as slide:
        sure = TissueMapper(ColourNet(), **EXACT).map_slide(slide)
        doubtful = TissueMapper(ColourNet(scale=0.014), undefined_below=0.5, **EXACT).map_slide(slide)
    assert sure.class_index.tolist() == values(pattern)
    assert doubtful.class_index[6, 10] != VALUE["D"]
    assert doubtful.class_index[6, 10] != VALUE["U"]
    assert doubtful.confidence[6, 10] < 0.5  # that of the class shown, the second


def test_polygons_cover_the_cells_of_each_class_exactly(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        annotations = list(class_annotations(TissueMapper(ColourNet(), **EXACT).map_slide(slide)))
    by_class = {annotation.class_name: annotation.geometry for annotation in annotations}
    assert len(annotations) == 3
    assert by_class["Blood"].equals(shapely.box(9 * 128, 6 * 128, 12 * 128, 9 * 128))
    whole = shapely.box(2 * 128, 2 * 128, 14 * 128, 10 * 128) - shapely.box(5 * 128, 4 * 128, 9 * 128, 8 * 128)
    assert shapely.union_all(list(by_class.values())).equals(whole)


def test_a_tile_that_cannot_be_decoded_is_not_analysed_and_nothing_else_changes(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels())
    break_tile(path, level=0, tile=2 * 8 + 1)  # 256 px tiles, 8 in a row: the cells of rows 4, 5 and columns 2, 3
    with open_slide(path, "tiff") as slide:
        tissue = TissueMapper(ColourNet(), **EXACT).map_slide(slide)
    expected = [list(row) for row in values(PATTERN)]
    for row, column in ((4, 2), (4, 3), (5, 2), (5, 3)):
        expected[row][column] = VALUE["N"]
    assert tissue.class_index.tolist() == expected
    assert tissue.failed_centres_level0.tolist() == [[320, 576], [448, 576], [320, 704], [448, 704]]
    assert np.isnan(tissue.confidence[4, 2])
    assert tissue.tissue_tiles == sum(character != "." for row in PATTERN for character in row)
    assert len(tissue.failures) >= 1


def test_a_slide_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels())
    for tile in range(8 * 6):
        break_tile(path, level=0, tile=tile)
    with open_slide(path, "tiff") as slide, pytest.raises(SlideReadError, match=r"s\.tif: none of the \d+ tiles"):
        TissueMapper(ColourNet(), **EXACT).map_slide(slide)


def test_glass_alone_is_background_and_the_model_is_not_asked(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels(("................",) * 12))
    network = ColourNet()
    with open_slide(path) as slide:
        tissue = TissueMapper(network).map_slide(slide)
    assert (tissue.class_index == 0).all()
    assert tissue.tissue_mm2() == 0.0
    assert network.batch_sizes == []


def test_batches_are_as_large_as_asked_and_progress_ends_at_the_total(slide_path: Path) -> None:
    network, seen = ColourNet(), list[tuple[int, int]]()
    with open_slide(slide_path) as slide:
        TissueMapper(network, batch_size=24, **EXACT).map_slide(slide, on_progress=lambda *at: seen.append(at))
    tiles = sum(character != "." for row in PATTERN for character in row)
    assert sum(network.batch_sizes) == tiles
    assert max(network.batch_sizes) == 24
    assert seen[0] == (0, tiles)
    assert seen[-1] == (tiles, tiles)


def test_the_networks_mode_and_gradients_are_left_as_they_were(slide_path: Path) -> None:
    network = ColourNet().train()
    with open_slide(slide_path) as slide:
        TissueMapper(network).map_slide(slide)
    assert network.training
    assert torch.is_grad_enabled()


def test_tri_cnn_is_run_as_it_is_called_by_hand(slide_path: Path) -> None:
    from tral_monai.networks.tri_cnn import TriCNN
    from tral_monai.slides.triplets import TripletReader, triplets_to_tensor_layout

    network = TriCNN(["Stroma", "Muscle", "Blood"], backbone="timm:mobilenetv3_small_050", hidden=(8,), seed=0).eval()
    mapper = TissueMapper(network, keep_probabilities=True, **EXACT)
    assert mapper.magnifications == (40.0, 10.0, 2.5)
    with open_slide(slide_path) as slide:
        tissue = mapper.map_slide(slide)
        tile = TripletReader(slide).read(np.array([[9 * 128 + 64, 6 * 128 + 64]]))
    with torch.no_grad():
        by_hand = torch.softmax(network(torch.from_numpy(triplets_to_tensor_layout(tile))), dim=1)[0]
    assert tissue.probabilities is not None
    assert tissue.probabilities[6, 9] == pytest.approx(by_hand.numpy(), abs=2e-3)  # float16, another batch


class Wrong(torch.nn.Module):
    def __init__(self, logits: object) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: torch.Tensor) -> object:
        return self.logits if not isinstance(self.logits, torch.Tensor) else self.logits.expand(len(image), -1)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(1, 3), r"logits of shape \(\d+, 2\), one per class in \['a', 'b'\], but gave \(\d+, 3\)"),
        ([1.0, 2.0], "but gave list; the checkpoint is of another network"),
        (torch.full((1, 2), float("nan")), "logits are not finite"),
    ],
)
def test_a_network_that_does_not_fit_is_told(slide_path: Path, logits: object, message: str) -> None:
    with open_slide(slide_path) as slide, pytest.raises(CheckpointError, match=message):
        TissueMapper(Wrong(logits), ["a", "b"]).map_slide(slide)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["x", "y"]}, r"classes must be the network's, but are \['x', 'y'\] instead of \['Stroma'"),
        ({"batch_size": 0}, "batch_size must be at least 1, but is 0"),
        ({"stride_px": 0}, "stride_px must be at least 1, but is 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, but is -1"),
        ({"read_ahead": -1}, "read_ahead must be 0 or more, but is -1"),
        ({"min_tissue_coverage": 2.0}, r"min_tissue_coverage must lie between 0 and 1, but is 2\.0"),
        ({"tissue_method": "magic"}, "tissue_method must be 'auto' or 'paper', but is 'magic'"),
        ({"undefined_below": 60.0}, "undefined_below must lie between 0 and 1"),
    ],
)
def test_settings_are_checked_before_the_run(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TissueMapper(ColourNet(), **settings)  # type: ignore[arg-type]


def test_class_names_must_be_known() -> None:
    with pytest.raises(ConfigError, match=r"give classes=\[\.\.\.\]"):
        TissueMapper(torch.nn.Identity())


def test_memory_does_not_grow_with_the_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over twice the slide, the same peak (numpy's and Python's own memory) but for a few bytes per tile.

    The cache of decoded tiles and the blocks read ahead are bounded too, but by more than these slides fill.
    """
    small = functools.partial(CanvasReader, cache_bytes=4 << 20, canvas_px=1024)
    monkeypatch.setattr("tral_monai.inference.tissue_mapper.CanvasReader", small)
    peaks = []
    for copies in (4, 6):
        pattern = tuple(row * copies for row in PATTERN) * copies
        path = write_slide(tmp_path / f"{copies}.tif", slide_pixels(pattern, cell_px=128))
        with open_slide(path) as slide:
            mapper = TissueMapper(ColourNet(), batch_size=32, num_workers=0)
            tracemalloc.start()
            mapper.map_slide(slide)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        ((0, 0, 2048, 1536), (0, 12), (0, 16)),  # all of it
        ((2 * 128, 3 * 128, 4 * 128, 2 * 128), (3, 5), (2, 6)),
        ((2 * 128 + 64, 3 * 128 + 65, 128, 256), (4, 6), (2, 3)),  # a centre at 64 is inside, one before 65 is not
        ((1700, 1000, 5000, 5000), (8, 12), (13, 16)),  # beyond the slide
    ],
)
def test_a_region_gives_what_the_whole_slide_gives_there(
    slide_path: Path, region: tuple[int, int, int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    network = ColourNet()
    with open_slide(slide_path) as slide:
        tissue = TissueMapper(network, **EXACT).map_slide(slide, region_level0=region)
    expected = np.zeros((12, 16), dtype=int)
    part = slice(*rows), slice(*columns)
    expected[part] = np.array(values(PATTERN))[part]
    assert tissue.class_index.tolist() == expected.tolist()
    assert sum(network.batch_sizes) == np.count_nonzero(expected)  # nothing else is looked at


def test_cells_cut_by_the_border_belong_to_a_region_that_reaches_it(tmp_path: Path) -> None:
    pixels = slide_pixels(("SSSS", "SSSS"))[:, :-80]  # the last column has 48 of 128 px: its centre is outside
    path = write_slide(tmp_path / "s.tif", pixels)
    with open_slide(path) as slide:
        mapper = TissueMapper(ColourNet(), min_tissue_coverage=0.2, **EXACT)
        whole, part = mapper.map_slide(slide), mapper.map_slide(slide, region_level0=(384, 0, 48, 256))
    assert part.class_index[:, 3].tolist() == whole.class_index[:, 3].tolist() == [VALUE["S"]] * 2
    assert not part.class_index[:, :3].any()


def test_a_mask_that_is_there_is_used(slide_path: Path) -> None:
    mapper = TissueMapper(ColourNet(), **EXACT)
    with open_slide(slide_path) as slide:
        mask = mapper.tissue_mask(slide)
        mask.mask[:, : mask.mask.shape[1] // 2] = False
        tissue = mapper.map_slide(slide, mask=mask)
    assert not tissue.class_index[:, :8].any()
    assert tissue.class_index[2, 12] == VALUE["M"]


def test_a_region_outside_of_the_slide_is_refused(slide_path: Path) -> None:
    with open_slide(slide_path) as slide, pytest.raises(ConfigError, match="lies outside of the slide, which has 2048"):
        TissueMapper(ColourNet()).map_slide(slide, region_level0=(2048, 0, 10, 10))


def test_an_engine_is_compared_by_what_the_map_shows() -> None:
    mapper = TissueMapper(ColourNet(), engine=EngineSettings(precision="bf16"))
    assert mapper._check is not None
    # Stroma from 0.61 to 0.59 becomes Undefined. Damaged from 0.92 to 0.88 becomes the second class. Below 0.6 it does
    # not matter which class is the most probable one.
    reference = torch.tensor([[0.61, 0.2, 0.1, 0.09], [0.05, 0.02, 0.01, 0.92], [0.4, 0.5, 0.05, 0.05]]).log()
    other = torch.tensor([[0.59, 0.2, 0.1, 0.11], [0.07, 0.03, 0.02, 0.88], [0.5, 0.4, 0.05, 0.05]]).log()
    found = mapper._check._measure([reference], [other])
    assert (found.tiles, found.differing) == (3, 2)
    assert found.largest_probability_difference == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("engine", "calibration", "floor"),
    [
        (EngineSettings(), {"max_disagreement": 0.05}, 0.95),
        (EngineSettings(min_agreement=0.9), {"max_disagreement": 0.05}, 0.9),
        (EngineSettings(), {}, 0.99),
    ],
)
def test_a_gate_may_differ_as_far_as_it_was_calibrated_for(
    tmp_path: Path, engine: EngineSettings, calibration: dict[str, float], floor: float
) -> None:
    network = small_network()
    gate = random_gate(network, calibration=calibration).save(tmp_path / "exit_gate.pt")
    mapper = TissueMapper(network, early_exit=gate, engine=engine)
    assert mapper._check is not None
    assert mapper._check.floor == pytest.approx(floor)


def test_an_engine_without_a_gate_keeps_99_percent() -> None:
    mapper = TissueMapper(ColourNet(), engine=EngineSettings(precision="bf16"))
    assert mapper._check is not None
    assert mapper._check.floor == 0.99
    assert TissueMapper(ColourNet())._check is None


def test_the_comparison_is_told_in_the_record(
    slide_path: Path, without_log: None, capsys: pytest.CaptureFixture[str]
) -> None:
    mapper = TissueMapper(ColourNet(), engine=EngineSettings(precision="bf16", agreement_tiles=200), **EXACT)
    assert mapper.runtime()["agreement"] is None
    with open_slide(slide_path) as slide:
        mapper.map_slide(slide)
    told = mapper.runtime()["agreement"]
    tiles = sum(character != "." for row in PATTERN for character in row)  # fewer than 200: the sample is not full
    assert (told["tiles"], told["differing"], told["sample"], told["permitted"]) == (tiles, 0, 200, 2)
    assert told["full"] is False
    assert f"torch bf16 gives the class of torch fp32 on {tiles} of {tiles} sampled tiles" in capsys.readouterr().err


def test_after_a_reset_the_new_weights_are_run_and_compared(slide_path: Path) -> None:
    network = ColourNet()
    mapper = TissueMapper(network, engine=EngineSettings(precision="bf16"), **EXACT)
    with open_slide(slide_path) as slide:
        before = mapper.map_slide(slide)
        with torch.no_grad():
            network.scale.fill_(1e-5)  # unsure of everything
        mapper.reset()
        assert mapper.agreement is None
        after = mapper.map_slide(slide)
    assert mapper.agreement is not None
    tissue = np.array(values(PATTERN)) > 0
    assert before.class_index.tolist() == values(PATTERN)
    assert (after.class_index[tissue] == VALUE["U"]).all()


def test_a_reset_refuses_a_gate_of_the_weights_before(tmp_path: Path) -> None:
    network = small_network()
    mapper = TissueMapper(network, early_exit=random_gate(network).save(tmp_path / "exit_gate.pt"))
    mapper.reset()
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    with pytest.raises(CheckpointError, match="the exit gate was made for the weights"):
        mapper.reset()


class WithoutMask(TissueMapper):
    """Must not come to the mask."""

    def tissue_mask(self, slide: Slide) -> TissueMask:
        raise AssertionError("the slide was read")


def test_features_that_cannot_be_had_are_refused_before_the_slide_is_read(tmp_path: Path, slide_path: Path) -> None:
    network = small_network()
    gate = random_gate(network).save(tmp_path / "exit_gate.pt")
    whole = SlidingWindowInferer((128, 128))
    for mapper, message in (
        (WithoutMask(network, early_exit=gate), "set either save_features or early_exit, not both"),
        (WithoutMask(network, inferer=whole), "but SlidingWindowInferer runs it on images .* not both"),
        (WithoutMask(ColourNet()), "'features' and 'head', such as a TriCNN, but ColourNet lacks them"),
    ):
        with open_slide(slide_path) as slide, pytest.raises(ConfigError, match=message):
            mapper.map_slide(slide, want_features=True)
        with pytest.raises(ConfigError, match=message):
            mapper.check_features()
    TissueMapper(network).check_features()
    TissueMapper(network, inferer=SimpleInferer()).check_features()


def test_cells_with_tissue_take_few_bytes_each_however_large_the_grid(tmp_path: Path) -> None:
    mapper = TissueMapper(ColourNet(), stride_px=1, min_tissue_coverage=0.4, **EXACT)
    peaks = []
    for side in (512, 1024):
        mask = TissueMask(np.ones((side // 32, side // 32), dtype=bool), mpp=8.0, downsample_level0=32.0)
        mask.mask[: side // 64] = False
        with open_slide(write_slide(tmp_path / f"{side}.tif", np.full((side, side, 3), 200, np.uint8))) as slide:
            grid = MapGrid.of_slide(slide, stride_px=1)
            tracemalloc.start()
            rows, columns = mapper._tissue_cells(slide, grid, SlideWindow(None, slide.dimensions), mask)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        # The model's square of 128 px has at least 40 % in tissue where its centre, the cell's lower right corner, lies
        # no more than 12.8 px above the edge.
        assert grid.shape == (side, side)
        assert rows.min() == side // 2 - 13
        order = rows * side + columns
        assert (np.diff(order) > 0).all()
        inner = (columns >= 64) & (columns < side - 64)
        assert set(rows[inner].tolist()) >= set(range(side // 2 - 13, side - 64))
    assert (peaks[1] - peaks[0]) / (1024**2 - 512**2) < 40
