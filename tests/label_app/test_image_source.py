# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.errors import ConfigError, MissingMppError, SlideOpenError, UnknownItemError
from tral_monai.label_app.image_source import ImageSource
from tral_monai.rounds.regions.catalog import SlideCatalog

MODEL_MPP = 0.25


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_slide(folder / "a.b.tiff", slide_pixels(("SS", "MM")), mpp=0.5)
    picture(folder / "field.png")
    return folder


def picture(path: Path, side: int = 40) -> Path:
    Image.fromarray(np.full((side, side, 3), 200, np.uint8)).save(path)
    return path


def source(studies: Path, **settings: object) -> ImageSource:
    catalog = SlideCatalog(studies, studies / "sides.json")
    return ImageSource(catalog, **settings)  # type: ignore[arg-type]


def opened_mpp(from_: ImageSource, path: Path, mpp: float | None = None) -> tuple[float, int]:
    slide, warnings = from_.open(path, mpp=mpp, model_mpp=MODEL_MPP)
    with slide:
        return slide.mpp, len(warnings)


@pytest.mark.parametrize("name", ["a.b", "a.b.tiff"])
def test_by_name_and_by_path(studies: Path, name: str) -> None:
    assert source(studies).find(name) == studies / "a.b.tiff"
    assert source(studies).find(str(studies / "a.b.tiff")) == studies / "a.b.tiff"


def test_a_link_that_the_lab_put_there_is_a_slide(studies: Path, tmp_path: Path) -> None:
    (studies / "linked.tif").symlink_to(write_slide(tmp_path / "archive.tif", slide_pixels(("SS",))))
    assert source(studies).find(str(studies / "linked.tif")).name == "linked.tif"


def test_no_other_file_can_be_read(studies: Path, tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    (studies / "way_out").symlink_to(tmp_path)
    for path in (
        str(outside),
        str(studies / ".." / "outside.png"),
        str(studies / "way_out" / "outside.png"),
        str(studies / "gone.png"),
        str(studies / "with\0zero.png"),
        str(studies),
        "/etc/passwd",
    ):
        with pytest.raises(UnknownItemError, match="there is no image '.*' that may be read; name a slide of the"):
            source(studies).find(path)
    with pytest.raises(UnknownItemError, match=r"there is no slide '\.\./outside\.png' in the studies folder"):
        source(studies).find("../outside.png")


def test_who_starts_the_server_says_what_may_be_read(studies: Path, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    upload = picture(uploads / "tmp1.png")
    asked = []

    def allowed(path: Path) -> bool:
        asked.append(path)
        return path.parent == uploads

    own = source(studies, allowed=allowed)
    assert own.find(str(upload)) == upload
    with pytest.raises(UnknownItemError, match=r"there is no image 'field\.png' that may be read"):
        own.find(str(studies / "field.png"))
    assert asked == [upload, studies / "field.png"]


@pytest.mark.parametrize("image", [None, "", 7, ["a"]])
def test_an_image_has_a_name(studies: Path, image: object) -> None:
    with pytest.raises(ConfigError, match="image must name a slide or a picture, but is"):
        source(studies).find(image)


def test_micrometres_per_pixel_from_the_best_there_is(studies: Path) -> None:
    own, field = source(studies), studies / "field.png"
    assert opened_mpp(own, studies / "a.b.tiff") == (pytest.approx(0.5, rel=1e-3), 0)
    assert opened_mpp(own, studies / "a.b.tiff", mpp=0.3) == (0.3, 0)
    assert opened_mpp(own, field) == (MODEL_MPP, 1)
    assert opened_mpp(source(studies, site_mpp=0.4), field) == (0.4, 0)
    (studies / "slides.csv").write_text("slide,mpp\nfield.png,0.7\n")
    assert opened_mpp(own, field) == (0.7, 0)
    assert opened_mpp(own, field, mpp=0.3) == (0.3, 0)


def test_the_warning_says_what_to_do(studies: Path) -> None:
    slide, warnings = source(studies).open(studies / "field.png", mpp=None, model_mpp=0.25)
    slide.close()
    assert warnings[0].startswith("field.png records no micrometres per pixel and was taken to have the 0.25 that the")
    assert "give mpp with the request, or --conf mpp" in warnings[0]


def test_the_resolution_of_a_slide_is_never_guessed(studies: Path) -> None:
    pyramid = write_slide(studies / "no_mpp.tif", slide_pixels(("SS", "MM")), mpp=None)
    Image.fromarray(np.full((8, 8193, 3), 200, np.uint8)).save(studies / "long.png")
    for path in (pyramid, studies / "long.png"):
        with pytest.raises(MissingMppError, match="records no micrometres per pixel; give the scanner's value"):
            source(studies).open(path, mpp=None, model_mpp=0.25)
        assert opened_mpp(source(studies), path, mpp=0.5) == (0.5, 0)


def test_a_cut_out_picture_has_the_resolution_of_its_slide(studies: Path) -> None:
    as_it_is = picture(studies / "a.b-patch-10_20_40_40.png", side=40)
    half_size = picture(studies / "a.b-patch-10_20_80_80.png", side=40)
    of_no_slide = picture(studies / "gone-patch-10_20_40_40.png", side=40)
    own = source(studies, site_mpp=0.9)
    assert opened_mpp(own, as_it_is) == (pytest.approx(0.5, rel=1e-3), 0)
    assert opened_mpp(own, half_size) == (pytest.approx(1.0, rel=1e-3), 0)
    assert opened_mpp(own, of_no_slide) == (0.9, 0)


def test_what_is_no_image_is_told(studies: Path) -> None:
    (studies / "notes.png").write_text("no picture")
    with pytest.raises(SlideOpenError, match=r"notes\.png: neither a slide nor an image"):
        source(studies).open(studies / "notes.png", mpp=None, model_mpp=0.25)
