# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tral_monai.errors import MissingMppError, SlideOpenError
from tral_monai.slides.mpp import choose_mpp, mpp_from_tiff, plausible

PATH = Path("folder") / "slide.tif"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Aperio Image Library v10\n46920x33014 JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990|Left = 25.69", (0.499, 0.499)),
        ("Aperio Image Library v10\n46920x33014 JPEG/RGB Q=30|AppMag = 20", None),
        ("Aperio Image Library v10|MPP = 0", None),
        ("somebody else's text|MPP = 0.5", None),
        ('<?xml?><OME><Pixels PhysicalSizeX="0.25" PhysicalSizeY="0.26"/></OME>', (0.25, 0.26)),
        (
            '<OME><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" '
            'PhysicalSizeY="2.5e-4" PhysicalSizeYUnit="mm"/></OME>',
            (0.25, 0.25),
        ),
        ('<OME><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"/></OME>', None),
        (
            '<DataObject><Attribute Name="DICOM_PIXEL_SPACING" Group="0x28" PMSVR="IDoubleArray">&quot;0.00026&quot; '
            "&quot;0.00025&quot;</Attribute></DataObject>",
            (0.25, 0.26),  # rows first in the file, x first here
        ),
        ("", None),
    ],
)
def test_from_description(description, expected):
    found = mpp_from_tiff(description, {})
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((40000, 1), 3, (0.25, 0.25)),  # 40,000 pixels per centimetre
        ((101600, 1), 2, (0.25, 0.25)),  # 101,600 per inch
        ((72, 1), 2, None),  # what graphics programs write: 353 um
        ((300, 1), 2, None),
        ((1, 1), 1, None),  # no unit of length
        ((0, 1), 3, None),
    ],
)
def test_from_resolution_tags(resolution, unit, expected):
    tags = {"XResolution": resolution, "YResolution": resolution, "ResolutionUnit": unit}
    found = mpp_from_tiff("", tags)
    assert found == (None if expected is None else pytest.approx(expected))


def test_description_before_resolution_tags():
    tags = {"XResolution": (20000, 1), "YResolution": (20000, 1), "ResolutionUnit": 3}
    assert mpp_from_tiff("Aperio Image|MPP = 0.25", tags) == (0.25, 0.25)


@pytest.mark.parametrize(("value", "kept"), [(0.04, False), (0.05, True), (10.0, True), (10.1, False)])
def test_plausible(value, kept):
    assert plausible((value, value)) == ((value, value) if kept else None)
    assert plausible((0.25, float("nan"))) is None


def test_given_value_wins():
    assert choose_mpp(PATH, (0.5, 0.5), 0.25) == (0.25, 0.25)
    assert choose_mpp(PATH, (0.5, 0.502), None) == (0.5, 0.502)


def test_missing_mpp_names_the_file_and_the_remedy():
    with pytest.raises(MissingMppError, match=r"^slide\.tif: .*mpp=0\.25.*column mpp"):
        choose_mpp(PATH, None, None)


@pytest.mark.parametrize("given", [0.0, -0.25, float("nan"), float("inf"), 250.0])
def test_given_value_must_be_a_length(given):
    with pytest.raises(SlideOpenError, match=r"slide\.tif: mpp must be a positive number"):
        choose_mpp(PATH, None, given)


def test_pixels_must_be_square():
    with pytest.raises(SlideOpenError, match=r"slide\.tif: pixels must be square .* 0\.2500 x 0\.2600"):
        choose_mpp(PATH, (0.25, 0.26), None)
    assert choose_mpp(PATH, (0.25, 0.26), 0.25) == (0.25, 0.25)
