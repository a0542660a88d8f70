# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import pytest

from tral_monai.errors import SlideOpenError
from tral_monai.slides import choose_backend
from tral_monai.slides.choose_backend import open_backend
from tral_monai.slides.cucim_backend import cucim_unavailable


def test_direct_decoding_first(small_slide):
    assert open_backend(small_slide, "auto").name == "tiff"


@pytest.fixture
def indirect_svs(tmp_path, write_svs, make_texture):
    """An SVS that is not decoded directly: JPEG2000 in YCbCr."""
    return write_svs(tmp_path / "a.svs", [make_texture(300, 260)], coding="jpeg2000/ycc")


def test_then_cucim_where_it_is_safe(indirect_svs):
    expected = "openslide" if cucim_unavailable() else "cucim"
    choose_backend._warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert open_backend(indirect_svs, "auto").name == expected


def test_falls_back_to_openslide_and_says_so_once(monkeypatch, indirect_svs):
    monkeypatch.setattr(choose_backend, "cucim_unavailable", lambda: "torch was imported first")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    choose_backend._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="through OpenSlide instead of cuCIM: torch was imported first"):
        assert open_backend(indirect_svs, "auto").name == "openslide"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_backend(indirect_svs, "auto").name == "openslide"


def test_says_nothing_where_cucim_is_not_installed(monkeypatch, indirect_svs):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    choose_backend._warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
