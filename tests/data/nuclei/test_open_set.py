# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError, UnknownClassError


def test_answers():
    open_set = OpenSet(("Tum", "Lym"), ("Mac",))
    assert open_set.answers(["Lym", "Mac", "ignored", "Tum"]) == ("Lym", "unknown", "ignored", "Tum")
    with pytest.raises(UnknownClassError, match=r"class 'Pla' is neither known \['Tum', 'Lym'\] nor unknown \['Mac'\]"):
        open_set.answer("Pla")
    with pytest.raises(UnknownClassError, match="class 'unknown' is neither"):
        open_set.answer("unknown")  # an answer is no true class


def test_all_others_are_unknown():
    found = OpenSet.of(["Tum", "Rare"], ["Pla", "Tum", "Mac", "Mac", "ignored"])
    assert (found.known, found.unknown) == (("Tum", "Rare"), ("Mac", "Pla"))


@pytest.mark.parametrize(
    ("known", "unknown", "message"),
    [
        ((), ("A",), "needs at least one known class, but has none"),
        (("A", "B"), ("B",), r"a class stands once in an open-set split, but \['B'\] stand more than once"),
        (("A", "A"), (), r"\['A'\] stand more than once"),
        (("A", "unknown"), (), r"\['unknown'\] are answers of the annotator and cannot be class names"),
        (("A",), ("ignored",), r"\['ignored'\] are answers"),
        ("AB", (), "the known classes must be a list of names, but are the text 'AB'"),
    ],
)
def test_splits_that_cannot_be(known, unknown, message):
    with pytest.raises(ConfigError, match=message):
        OpenSet(known, unknown)
