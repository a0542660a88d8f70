# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from tral_monai.errors import SlideError, SlideOpenError
from tral_monai.inference.fingerprints import (
    SlideContent,
    recorded_content,
    require_unchanged,
    run_key,
    slide_content,
    weights_sha256,
)
from tral_monai.slides.fingerprint import slide_stamp


def test_weights_count_with_names_and_values() -> None:
    first = torch.nn.BatchNorm1d(3)
    same = torch.nn.BatchNorm1d(3)
    assert weights_sha256(first) == weights_sha256(same)
    with torch.no_grad():
        same.running_mean[1] += 1e-3  # type: ignore[index]
    assert weights_sha256(first) != weights_sha256(same)
    assert weights_sha256(torch.nn.Sequential(first)) != weights_sha256(first)


def test_settings_in_any_order_give_one_key() -> None:
    assert run_key({"a": 1, "b": [1, 2]}) == run_key({"b": [1, 2], "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 2})


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    path.write_bytes(b"tissue")
    return path


def test_a_slide_that_nobody_touched_is_not_read_again(slide: Path) -> None:
    content = slide_content(slide)
    assert content == SlideContent(hashlib.sha256(b"6\ntissue").hexdigest(), slide_stamp(slide))
    known = SlideContent("0" * 64, content.stamp)
    if os.name != "nt":
        assert slide_content(slide, known) is known  # else this hash, which is not the slide's, would not come back


def test_a_slide_that_was_touched_is_read_again(slide: Path) -> None:
    content = slide_content(slide)
    slide.rename(slide.with_name("b.tif"))
    assert slide_content(slide.with_name("b.tif"), SlideContent("0" * 64, content.stamp)).sha256 == content.sha256
    slide.write_bytes(b"TISSUE")
    os.utime(slide, ns=(0, 0))
    assert slide_content(slide, content).sha256 != content.sha256
    assert slide_content(slide, SlideContent("0" * 64, None)).sha256 != "0" * 64


def test_a_record_says_what_the_slide_held() -> None:
    assert recorded_content({"slide": {"sha256": "ab", "stamp": "cd"}}) == SlideContent("ab", "cd")
    assert recorded_content({"slide": {"sha256": "ab"}}) == SlideContent("ab", None)
    for record in ({}, {"slide": None}, {"slide": {"name": "a.tif"}}, {"slide": {"sha256": 3}}):
        assert recorded_content(record) is None


def test_a_slide_that_changed_while_it_was_read_is_refused(slide: Path) -> None:
    before = slide_content(slide)
    require_unchanged(slide, before)
    slide.touch()  # other times, the same content
    require_unchanged(slide, before)
    slide.write_bytes(b"tissues")
    with pytest.raises(SlideOpenError, match=r"a\.tif: the file changed while it was read"):
        require_unchanged(slide, before)
    slide.unlink()
    with pytest.raises(SlideOpenError, match=r"a\.tif: the file went away while it was read"):
        require_unchanged(slide, before)
    with pytest.raises(SlideError, match=r"a\.tif: the file cannot be read \(No such file"):
        slide_content(slide)
