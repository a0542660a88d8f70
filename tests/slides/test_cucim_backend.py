# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tral_monai.errors import MissingExtraError
from tral_monai.slides.cucim_backend import CuCIMBackend, cucim_unavailable, would_hang
from tral_monai.slides.slide import open_slide

UNAVAILABLE = cucim_unavailable()
needs_cucim = pytest.mark.skipif(UNAVAILABLE is not None, reason=f"cuCIM cannot be used: {UNAVAILABLE}")


@pytest.mark.parametrize(
    ("platform", "has_proc_modules", "libraries", "torch_imported", "expected"),
    [
        ("linux", False, "", True, True),
        ("linux", False, "libcufile.so.0", False, True),
        ("linux", False, "libcufile.so.0 cucim.kit.cuslide@26.so", True, False),  # a slide was opened before torch
        ("linux", False, "", False, False),
        ("linux", True, "libcufile.so.0", True, False),
        ("win32", False, "", True, False),
    ],
)
def test_condition_under_which_it_hangs(platform, has_proc_modules, libraries, torch_imported, expected):
    hangs = would_hang(
        platform=platform, has_proc_modules=has_proc_modules, libraries=libraries, torch_imported=torch_imported
    )
    assert hangs is expected


def test_never_hangs_after_torch(small_slide):
    # In a process of its own, where something called torch is imported and no slide was opened before.
    code = (
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "from tral_monai.errors import SlideOpenError\n"
        "from tral_monai.slides import open_slide\n"
        "from tral_monai.slides.cucim_backend import cucim_unavailable\n"
        "try:\n"
        "    print('opened' if open_slide(sys.argv[1], 'cucim') else '')\n"
        "except (SlideOpenError, ImportError) as error:\n"
        "    print('refused', error)\n"
    )
    command = [sys.executable, "-c", code, str(small_slide)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(("opened", "refused"))


@needs_cucim
def test_same_pixels_as_the_other_backends(small_slide):
    cucim, direct = open_slide(small_slide, "cucim"), open_slide(small_slide, "tiff")
    assert cucim.mpp == direct.mpp
    for level, (width, height) in enumerate(direct.level_dimensions):
        box = ((-20, -30), (width + 50, height + 60))
        assert (cucim.read(*box, level=level) == direct.read(*box, level=level)).all()


@needs_cucim
@pytest.mark.parametrize("coding", ["jpeg/rgb", "jpeg/ycc", "jpeg2000/rgb", "jpeg2000/ycc"])
def test_aperio_within_rounding_of_openslide(tmp_path, write_svs, make_texture, make_levels, coding):
    path = write_svs(tmp_path / "a.svs", make_levels(make_texture(700, 500)), coding=coding)
    cucim, reference = open_slide(path, "cucim"), open_slide(path, "openslide")
    assert cucim.mpp == 0.25
    for level, size in enumerate(reference.level_dimensions):
        difference = cucim.read((0, 0), size, level=level).astype(int) - reference.read((0, 0), size, level=level)
        assert np.abs(difference).max() <= 1


@needs_cucim
def test_level_whose_factor_is_no_integer(tmp_path, write_svs, make_texture):
    # 701 / 350 = 2.003: cuCIM takes positions in level-0 pixels, which must come back as the level's own.
    pixels = make_texture(701, 501)
    path = write_svs(tmp_path / "a.svs", [pixels, pixels[:500:2, :700:2]])
    cucim, direct = open_slide(path, "cucim"), open_slide(path, "tiff")
    assert (cucim.read((0, 0), (350, 250), level=1) == direct.read((0, 0), (350, 250), level=1)).all()


@needs_cucim
def test_tiles_left_out_are_white(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(700, 500)], empty=frozenset({1}))
    assert (open_slide(path, "cucim").read((256, 0), (256, 256)) == 255).all()


def test_missing_extra_is_named(monkeypatch, small_slide):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tral_monai\[cucim\]"):
        CuCIMBackend(small_slide)
