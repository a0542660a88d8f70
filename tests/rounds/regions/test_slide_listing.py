# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from tral_monai.rounds.regions.slide_listing import SlideEntry, SlideListing, slide_id, without_patches


def listing(*names: str) -> SlideListing:
    return SlideListing({name: SlideEntry(Path(name), slide_id(name), slide_id(name)) for name in names})


def test_clients_call_a_slide_by_the_shortest_name_that_means_it() -> None:
    slides = listing("a.tif", "a.tiff", "b.c.svs", "d.tif", "d.tif.svs")
    expected = {"a.tif": "a.tif", "a.tiff": "a.tiff", "b.c.svs": "b.c", "d.tif": "d", "d.tif.svs": "d.tif.svs"}
    assert {name: slides.client_id(name) for name in expected} == expected
    assert all(slides.find(name).name == file for file, name in expected.items())
    assert slides.client_id("gone.svs") == "gone"


def test_pictures_of_regions_are_told_from_slides() -> None:
    names = ["a.svs", "x.ome.tif", "a-patch-0_0_9_9.png", "x-patch-0_0_9_9.png", "b-patch-0_0_9_9.png"]
    assert without_patches(names) == ["a.svs", "x.ome.tif", "b-patch-0_0_9_9.png"]
