# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import tifffile

from tral_monai.errors import SlideError, SlideOpenError
from tral_monai.slides.slide import open_slide
from tral_monai.slides.tiff_pyramid import NotDirectError, empty_tiles, read_pyramid, stored_mpp, vendor


def sizes(path):
    return [(level.width, level.height) for level in read_pyramid(path)[0]]


def test_generic_pyramid(small_slide):
    levels, mpp = read_pyramid(small_slide)
    assert [(level.width, level.height) for level in levels] == [(1500, 1100), (375, 275), (93, 68)]
    assert [(level.columns, level.rows) for level in levels] == [(6, 5), (2, 2), (1, 1)]
    assert mpp == pytest.approx((0.25, 0.25))
    assert vendor(small_slide) is None


def test_svs_without_label_macro_and_thumbnail(tmp_path, write_svs, make_texture, make_levels):
    # A macro image in tiles: its shape alone tells that it is no level.
    path = write_svs(tmp_path / "a.svs", make_levels(make_texture(700, 500)), macro={"tile": (32, 32)})
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [
            (500, 700),
            (100, 80),
            (125, 175),
            (31, 43),
            (100, 80),
            (80, 100),
        ]
    assert sizes(path) == [(700, 500), (175, 125), (43, 31)]
    assert stored_mpp(path) == (0.25, 0.25)
    assert vendor(path) == "aperio"


def test_ome_tiff_keeps_its_levels_below_the_first(tmp_path, make_texture, make_levels):
    path = tmp_path / "a.ome.tif"
    levels = make_levels(make_texture(600, 500), (1, 2, 4))
    metadata = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], tile=(128, 128), photometric="rgb", subifds=2, metadata=metadata)
        for pixels in levels[1:]:
            tiff.write(pixels, tile=(128, 128), photometric="rgb", subfiletype=1)
    assert sizes(path) == [(600, 500), (300, 250), (150, 125)]
    assert stored_mpp(path) == (0.5, 0.5)
    with open_slide(path) as slide:
        assert (slide.read((0, 0), (150, 125), level=2) == levels[2]).all()


def test_second_image_that_is_no_reduction_is_no_level(tmp_path, make_texture):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(make_texture(300, 200), tile=(64, 64), photometric="rgb", metadata=None)
        tiff.write(make_texture(150, 100), tile=(64, 64), photometric="rgb", metadata=None)
    assert sizes(path) == [(300, 200)]


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.zeros((90, 90), np.uint8), {"tile": (32, 32)}, "1 samples of uint8"),
        (np.zeros((90, 90, 3), np.uint16), {"tile": (32, 32), "photometric": "rgb"}, "3 samples of uint16"),
        (np.zeros((90, 90, 4), np.uint8), {"tile": (32, 32), "photometric": "rgb", "extrasamples": [2]}, "4 samples"),
        (
            np.zeros((90, 90, 3), np.uint8),
            {"tile": (32, 32), "photometric": "rgb", "compression": "lzma"},
            "compression",
        ),
        (np.zeros((90, 90, 3), np.uint8), {"photometric": "rgb"}, "not tiled"),
    ],
)
def test_other_tiffs_are_left_to_other_backends(tmp_path, pixels, options, reason):
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(NotDirectError, match=rf"^other\.tif: .*{reason}"):
        read_pyramid(path)


def test_not_a_tiff(tmp_path):
    path = tmp_path / "text.tif"
    path.write_text("not a slide")
    with pytest.raises(NotDirectError, match=r"text\.tif: not a TIFF"):
        read_pyramid(path)
    assert stored_mpp(path) is None
    assert vendor(path) is None


def test_empty_tiles_are_listed(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(700, 500)], empty=frozenset({2, 4}))
    assert empty_tiles(path) == {(700, 500): frozenset({(2, 0), (1, 1)})}


def test_file_cut_anywhere_is_refused_by_name(tmp_path, small_slide):
    whole = small_slide.read_bytes()
    path = tmp_path / "cut.tif"
    cuts = np.linspace(1, len(whole) - 1, 60).astype(int).tolist()
    for cut in [*cuts, 4, 8, 9, 300]:
        path.write_bytes(whole[:cut])
        with pytest.raises(SlideOpenError, match=r"^cut\.tif: .*(cut short|damaged|cannot identify)"):
            open_slide(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:tifffile")
def test_damaged_directory_never_escapes_as_another_error(tmp_path, small_slide):
    whole = small_slide.read_bytes()
    with tifffile.TiffFile(small_slide) as tiff:
        start = tiff.pages[0].offset
    path = tmp_path / "bad.tif"
    generator = np.random.default_rng(1)
    refused = []
    for _ in range(150):
        data = bytearray(whole)
        for position in generator.integers(start, start + 220, 3):
            data[position] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            slide = open_slide(path)
            if np.prod(slide.dimensions) < 1e8:
                slide.read((0, 0), (64, 64))
        except SlideError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(message.startswith("bad.tif: ") for message in refused)
