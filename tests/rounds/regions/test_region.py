# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.region import Region


def test_an_id_is_the_same_on_any_machine_and_fits_a_signed_64_bit_number() -> None:
    region = Region("a.svs", 1, 2, 3, 4)
    # blake2b(b"a.svs\x001\x002\x003\x004", digest_size=8), without its last two bits
    assert region.id == 2717818453843376213
    assert 0 <= region.id < 2**62


def test_other_rectangles_and_slides_have_other_ids() -> None:
    others = [
        Region("a.svs", 1, 2, 3, 4),
        Region("b.svs", 1, 2, 3, 4),
        Region("a.svs", 12, 3, 4, 4),
        Region("a.svs", 1, 23, 4, 4),
        Region("a.svs", 1, 2, 34, 4),
    ]
    assert len({region.id for region in others}) == 5


def test_box_and_outline_are_the_rectangle() -> None:
    region = Region("a.svs", 10, 20, 30, 40)
    assert region.bbox_level0 == (10, 20, 30, 40)
    assert region.polygon.bounds == (10.0, 20.0, 40.0, 60.0)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_a_region_has_an_area(width: int, height: int) -> None:
    with pytest.raises(ConfigError, match=r"a\.svs: a region must be 1 pixel or more across, but is \(0, 0, "):
        Region("a.svs", 0, 0, width, height)
