# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import SlideOpenError
from tral_monai.slides.choose_backend import open_backend


def test_direct_decoding_first(small_slide):
    assert open_backend(small_slide, "auto").name == "tiff"


@pytest.fixture
def indirect_svs(tmp_path, write_svs, make_texture):
    """An SVS that is not decoded directly: JPEG2000 in YCbCr."""
    return write_svs(tmp_path / "a.svs", [make_texture(300, 260)], coding="jpeg2000/ycc")


def test_cucim_only_where_it_is_asked_for(indirect_svs):
    """A tile that does not decode came back from cuCIM as whatever lay in memory, and was mapped as tissue."""
    assert open_backend(indirect_svs, "auto").name == "openslide"


def test_missing_file(tmp_path):
    with pytest.raises(SlideOpenError, match=r"^nowhere\.svs: no such file"):
        open_backend(tmp_path / "nowhere.svs", "auto")


def test_folder(tmp_path):
    with pytest.raises(SlideOpenError, match="is a folder"):
        open_backend(tmp_path, "auto")


@pytest.mark.parametrize("backend", ["auto", "tiff", "openslide"])
def test_empty_file(tmp_path, backend):
    path = tmp_path / "empty.svs"
    path.touch()
    with pytest.raises(SlideOpenError, match=r"empty\.svs: the file is empty"):
        open_backend(path, backend)


@pytest.mark.parametrize("backend", ["auto", "tiff", "openslide", "image"])
@pytest.mark.parametrize("name", ["text.svs", "text.tif", "text.png", "text.mrxs"])
def test_not_a_slide(tmp_path, backend, name):
    path = tmp_path / name
    path.write_text("this is not a slide\n" * 20)
    with pytest.raises(SlideOpenError, match=rf"^{name}: "):
        open_backend(path, backend)


def test_unknown_backend(small_slide):
    with pytest.raises(SlideOpenError, match="backend must be 'auto' or one of .*'tiff'.*, got 'bioformats'"):
        open_backend(small_slide, "bioformats")
