# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tral_monai.errors import MissingMppError, SlideError
from tral_monai.inference.slide_failure import failure_text, unexpected_text, without_folders

SLIDE = Path("/data/P. Smith/a.tif")


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("/data/P. Smith/a.tif: cut short", "a.tif: cut short"),
        ("a.tif: [Errno 2] No such file: '/home/x/P. Jones/y.tif'", "a.tif: [Errno 2] No such file: 'y.tif'"),
        ("a.tif: see /home/x/y, or ~/cases/z.txt", "a.tif: see y, or z.txt"),
        (r'a.tif: no "C:\cases of Jones\b.tif", nor D:\cases\c.tif', 'a.tif: no "b.tif", nor c.tif'),
        ("a.tif: 40x/10x at 3 tiles/s; https://openslide.org", "a.tif: 40x/10x at 3 tiles/s; https://openslide.org"),
    ],
)
def test_of_paths_only_the_file_names_are_left(message: str, left: str) -> None:
    assert without_folders(message, SLIDE) == left


def test_a_slide_without_mpp_is_told_with_the_option_to_give() -> None:
    assert failure_text(SlideError("a.tif: cut short"), SLIDE) == "a.tif: cut short"
    text = failure_text(MissingMppError("a.tif: records no mpp; pass mpp="), SLIDE)
    assert text.startswith("a.tif: the file records no micrometres per pixel; give the scanner's value with --mpp")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("division by zero"), "a.tif: ZeroDivisionError: division by zero; see the log"),
        (ValueError("cannot map /home/x/y"), "a.tif: ValueError; see the log"),
        (ValueError(r"cannot map C:\x"), "a.tif: ValueError; see the log"),
        (KeyError(), "a.tif: KeyError; see the log"),
    ],
)
def test_an_unexpected_message_is_told_only_where_it_can_hold_no_path(error: Exception, text: str) -> None:
    assert unexpected_text("a.tif", error) == text
