# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tral_monai.errors import ConfigError
from tral_monai.label_app.safe_names import check_name, check_tag, inside


@pytest.mark.parametrize("name", ["a", "a.b", "x.ome", "a b-patch-1_2_3_4", "Schnitt Ä", "-a", "a..b"])
def test_names_of_files_are_allowed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "/a", "a\\b", "C:a", "a\x00", "a\x1b[0m", "\u202ea", "a" * 201]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert check_name(name, strict=False) == ""
    with pytest.raises(ConfigError, match=r"expected the name of an image, without path separators"):
        check_name(name)


def test_tags_are_words() -> None:
    assert check_tag("final_2-b") == "final_2-b"
    for tag in ("", "a/b", "..", "a b", "a\n", "é"):
        assert check_tag(tag, strict=False) == ""
        with pytest.raises(ConfigError, match=r"a tag may hold letters, digits, _ and - only"):
            check_tag(tag)


def test_links_are_followed_before_it_is_said_where_something_lies(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    (tmp_path / "secret").write_text("")
    (studies / "link").symlink_to(tmp_path / "secret")
    assert inside(studies / "a", studies)
    assert not inside(studies / "link", studies)
    assert not inside(studies / ".." / "secret", studies)
    assert not inside(tmp_path / "studies2" / "a", studies)
