# SPDX-License-Identifier: Apache-2.0
"""A night's run over damaged and odd slides: named, marked, never taken for background; the rest as without them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tests.bundles.bundle_files import BLADDER, SMALL, TISSUE
from tests.end_to_end.killed_inference import finished
from tests.inference.colour_slides import PATTERN, slide_pixels, write_slide
from tests.inference.damaged_slides import break_tile, cut_short, directory_offset, hollow_out, tile_offset
from tral_monai.errors import CheckpointError, ConfigError, OutputError
from tral_monai.inference.class_map_png import read_class_map
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.bundle_run import run_workflow

LOW_TILE_PX = 32  # of the 2.5x level, so that it has several tiles


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.pt", TriCNN(BLADDER, **SMALL, seed=0))


def infer(checkpoint: Path, slides: Path, output: Path, **settings: Any) -> dict[str, dict[str, str]]:
    """Run the tissue bundle over a folder and give the rows of its table by slide."""
    options = {"undefined_below": 0.0, "fail_on": "never", "device": "cpu", **settings}
    paths = {"checkpoint": str(checkpoint), "slides": str(slides), "output_dir": str(output)}
    run_workflow([TISSUE.config_folder / "inference.yaml"], bundle_root=str(TISSUE.folder), **paths, **options)
    with (output / "areas.csv").open(newline="", encoding="utf-8") as stream:
        return {row["slide"]: row for row in csv.DictReader(stream)}


def write_pyramid(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    """40x, 10x and 2.5x; the lowest level in small tiles."""
    with tifffile.TiffWriter(path) as file:
        for factor, tile in ((1, 256), (4, 128), (16, LOW_TILE_PX)):
            file.write(
                np.ascontiguousarray(pixels[::factor, ::factor]),
                tile=(tile, tile),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                subfiletype=int(factor > 1),
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
            )
    return path


# Level, tile of it, its side in pixels, level-0 pixels per pixel: of 2048 x 1536 px.
BROKEN = {"40x": (0, 10, 256, 1), "10x": (1, 1, 128, 4), "2.5x": (2, 0, LOW_TILE_PX, 16)}


def touched(shape: tuple[int, int], level: int, tile: int, tile_px: int, factor: int) -> npt.NDArray[np.bool_]:
    """Which cells of 128 px have a 128 px window on the tile, at that level around their centre."""
    columns = -(-2048 // factor // tile_px)
    low_x, low_y = tile % columns * tile_px, tile // columns * tile_px
    y, x = (np.arange(n) * 128 + 64 for n in shape)
    in_x = (x // factor - 64 < low_x + tile_px) & (x // factor + 64 > low_x)
    in_y = (y // factor - 64 < low_y + tile_px) & (y // factor + 64 > low_y)
    return in_y[:, None] & in_x[None, :]


@pytest.mark.parametrize("backend", ["tiff", pytest.param("openslide", marks=pytest.mark.slow)])
def test_a_broken_tile_in_any_level_is_not_analysed_and_the_rest_is_right(backend, checkpoint, tmp_path):
    slides, maps = tmp_path / "slides", tmp_path / "maps"
    slides.mkdir()
    good = write_pyramid(slides / "good.tif", slide_pixels(PATTERN))
    for name, (level, tile, _, _) in BROKEN.items():
        shutil.copy(good, slides / f"{name}.tif")
        break_tile(slides / f"{name}.tif", level, tile)
    rows = infer(checkpoint, slides, maps, backend=backend)
    broken = dict(BROKEN)
    if backend == "openslide":  # reads tiles of less than 128 px in blocks of 512: here the whole level, which is lost
        broken.pop("2.5x")
        lost = rows.pop("2.5x.tif")
        assert lost["status"] == "failed"
        assert lost["error"].startswith("2.5x.tif: ")
        assert lost["error"].endswith("copy it again")
        assert not (maps / "2.5x.json").exists()
    assert {row["status"] for row in rows.values()} == {"mapped"}
    expected, names = read_class_map(maps / "good_classes.png")
    background, unknown = names.index("Background"), names.index("Not analysed")
    for name, place in broken.items():
        found, _ = read_class_map(maps / f"{name}_classes.png")
        near = touched(found.shape, *place)
        assert (found[~near] == expected[~near]).all(), name
        # Where the tissue mask saw nothing of the damage, glass around it is known to be glass.
        tissue = expected != background
        assert (tissue & near).any()
        assert (found[near & tissue] == unknown).all(), name
        assert np.isin(found[near & ~tissue], (background, unknown)).all(), name
        record = json.loads((maps / f"{name}.json").read_text())["result"]["not_analysed"]
        assert record["tiles"] == int((found == unknown).sum()) == int(rows[f"{name}.tif"]["not_analysed_tiles"])
        centres = {(x // 128, y // 128) for x, y in record["centres_level0"]}
        assert centres == {(column, row) for row, column in np.argwhere(found == unknown)}
        assert "copy it again" in record["messages"][0]
        shapes = json.loads((maps / f"{name}.geojson").read_text())
        shapes = shapes["features"] if isinstance(shapes, dict) else shapes
        assert "Not analysed" in {shape["properties"]["classification"]["name"] for shape in shapes}


def test_a_folder_of_odd_and_damaged_files(checkpoint, tmp_path):
    slides, maps = tmp_path / "slides of two labs", tmp_path / "maps"
    slides.mkdir()
    tissue = slide_pixels(("SM", "BS"))
    good = write_slide(slides / "good.tif", tissue)
    size = good.stat().st_size
    (slides / "zero.tif").touch()
    (slides / "text.tif").write_text("no slide at all\n" * 50)
    for name, length in (
        ("cut in level 0", tile_offset(good, 0, 0)[0] + 10),
        ("cut in a directory", directory_offset(good, 1) + 20),
        ("cut at its end", size - 1),
    ):
        cut_short(Path(shutil.copy(good, slides / f"{name}.tif")), length)
    hollow_out(Path(shutil.copy(good, slides / "hollow.tif")), 0, 0, first=0.3, last=1.0)
    write_slide(slides / "no mpp.tif", tissue, mpp=None)
    with tifffile.TiffWriter(slides / "not square.tif") as file:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "resolutionunit": "CENTIMETER"}
        file.write(tissue, resolution=(40_000, 30_000), **options)
    for name, colour in (("white", (255,) * 3), ("black", (0,) * 3), ("glass", (253, 253, 252))):
        write_slide(slides / f"{name}.tif", np.full((256, 256, 3), colour, np.uint8))
    write_slide(slides / "smaller than a tile.tif", tissue[:50, :60].copy())
    write_slide(slides / "20x.tif", tissue, mpp=0.5)
    write_slide(slides / "80x.tif", tissue, mpp=0.125)
    for name in ("sp ace", "Ümläut", "x#y", "quo'te\"s", ".dot"):
        shutil.copy(good, slides / f"{name}.tif")
    for name in ("good.xml", "thumbs.db", "good.tif.partial", "notes.txt"):
        (slides / name).write_bytes(b"no slide")
    before = {path: path.read_bytes() for path in slides.iterdir()}

    rows = infer(checkpoint, slides, maps, tissue_method="paper")
    assert {path: path.read_bytes() for path in slides.iterdir()} == before  # nothing is written beside the slides
    errors = {name.removesuffix(".tif"): row["error"] for name, row in rows.items() if row["status"] == "failed"}
    expected = {
        "zero": "the file is empty; copy it again",
        "text": "neither a slide nor an image",
        "cut in level 0": "cut short",
        "cut in a directory": "cut short",
        "cut at its end": "cut short",
        "hollow": "none of the 4 tiles",
        "no mpp": "--mpp 0.25",
        "not square": "--override_mpp true",
    }
    assert errors.keys() == expected.keys()
    for name, message in expected.items():
        assert message in errors[name]
        assert not (maps / f"{name}.json").exists()
    tiles = {name.removesuffix(".tif"): int(row["tissue_tiles"]) for name, row in rows.items() if row["tissue_tiles"]}
    assert [tiles[name] for name in ("good", "sp ace", "Ümläut", "x#y", "quo'te\"s", ".dot")] == [4] * 6
    assert (tiles["white"], tiles["glass"], tiles["20x"], tiles["80x"]) == (0, 0, 16, 1)
    assert len(rows) == len(finished(maps)) + len(errors) == 20


def test_mpp_for_slides_without_and_for_all(checkpoint, tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    tissue = slide_pixels(("SM", "BS"))
    write_slide(slides / "none.tif", tissue, mpp=None)
    write_slide(slides / "own.tif", tissue, mpp=0.25)

    def tiles(output: str, **settings: Any) -> list[str]:
        rows = infer(checkpoint, slides, tmp_path / output, tissue_method="paper", **settings)
        return [rows[name]["tissue_tiles"] for name in ("none.tif", "own.tif")]

    assert tiles("a") == ["", "4"]
    assert tiles("a", mpp=0.5) == ["16", "4"]
    assert tiles("a", mpp=0.5, override_mpp=True) == ["16", "16"]
    assert tiles("b", mpp=1.0, override_mpp=True) == ["64", "64"]


def test_two_slides_of_one_stem_and_links(checkpoint, tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    write_slide(slides / "a.tif", slide_pixels(("S",)))
    try:
        (slides / "link.tif").symlink_to(slides / "a.tif")
    except OSError as error:
        pytest.skip(f"needs links: {error}")
    rows = infer(checkpoint, slides, tmp_path / "maps")
    assert list(rows) == ["a.tif"]  # the same slide, under the name of the file
    shutil.copy(slides / "a.tif", slides / "A.tiff")
    with pytest.raises(ConfigError, match=r"would both write .*rename one"):
        infer(checkpoint, slides, tmp_path / "maps")


def state_only(path: Path) -> None:
    import torch

    torch.save(TriCNN(BLADDER, **SMALL, seed=0).state_dict(), path)


def torchscript(path: Path) -> None:
    import torch

    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def with_nan(path: Path) -> None:
    import torch

    network = TriCNN(BLADDER, **SMALL, seed=0)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    save_checkpoint(path, network)


def detector(path: Path) -> None:
    from tests.inference.nuclei.conftest import SMALLEST
    from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

    save_checkpoint(path, OpenSetRCNN(["a", "b"], role="target", seed=0, **SMALLEST))


def half(path: Path) -> None:
    save_checkpoint(path, TriCNN(BLADDER, **SMALL, seed=0))
    cut_short(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (state_only, "a state dict alone does not say what its outputs mean"),
        (torchscript, "no TorchScript"),
        (with_nan, "weights that are not finite"),
        (detector, "must be a checkpoint of TriCNN, but is of OpenSetRCNN"),
        (half, "no file that was cut short"),
        (Path.touch, "cannot read model.pt as weights"),
        (lambda path: None, "there is no checkpoint"),
    ],
    ids=["state", "torchscript", "nan", "detector", "half", "empty", "none"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_the_first_slide(make, message, tmp_path):
    write_slide(tmp_path / "a.tif", slide_pixels(("S",)))
    make(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        infer(tmp_path / "model.pt", tmp_path / "a.tif", tmp_path / "maps")
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


def test_an_output_folder_that_is_a_file(checkpoint, tmp_path):
    write_slide(tmp_path / "a.tif", slide_pixels(("S",)))
    (tmp_path / "maps").touch()
    with pytest.raises(ConfigError, match=r"'.*maps' cannot be written to .*choose another with output_dir"):
        infer(checkpoint, tmp_path / "a.tif", tmp_path / "maps")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_output_folder_of_somebody_else(tmp_path):
    from tral_monai.atomic_file import prepare_folder

    tmp_path.chmod(0o755)
    (tmp_path / "maps").mkdir(mode=0o755)
    child = os.fork()
    if child == 0:  # root may write everywhere
        os.setuid(65534)
        try:
            prepare_folder(tmp_path / "maps")
        except ConfigError as error:
            os._exit(7 if "Permission denied" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_disk_that_fills_up(checkpoint, tmp_path):
    slides, maps = tmp_path / "slides", tmp_path / "maps"
    slides.mkdir()
    maps.mkdir()
    for number in range(2):
        write_slide(slides / f"s{number}.tif", slide_pixels(PATTERN))
    infer(checkpoint, slides / "s0.tif", tmp_path / "one")
    pages = sum(-(-path.stat().st_size // 4096) for path in (tmp_path / "one").iterdir())
    size = f"size={pages * 6}k"  # of 4 KiB: room for one slide and a half
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", maps], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(OutputError, match=r"cannot write s1.* No space left .*run the same command again"):
            infer(checkpoint, slides, maps)
        first = finished(maps)
        assert first.keys() == {"s0"}
        subprocess.run(["mount", "-o", "remount,size=10m", maps], check=True)
        rows = infer(checkpoint, slides, maps)
        assert [row["status"] for row in rows.values()] == ["kept", "mapped"]
        assert finished(maps)["s0"] == first["s0"]
        assert not list(maps.glob(".part-*"))
    finally:
        subprocess.run(["umount", maps], check=True)
