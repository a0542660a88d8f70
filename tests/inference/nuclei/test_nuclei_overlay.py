# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.nuclei_overlay import NucleiOverlayWriter, render_nuclei
from tral_monai.inference.nuclei.nucleus_map import NucleusMap

RED, BLUE = (200, 0, 0), (0, 90, 200)


def is_colour(pixels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray((pixels == colour).all(axis=2))


def test_every_nucleus_has_its_box_in_the_colour_of_its_class(three_nuclei: NucleusMap) -> None:
    field = np.full((100, 200, 3), 180, dtype=np.uint8)
    page = np.asarray(render_nuclei(field, three_nuclei, title="a.png"))
    # 200 px are enlarged five times to 1000; the picture starts below title and facts (3.8 lines of 12 px), at 12 px.
    picture = page[46 : 46 + 500, 12 : 12 + 1000]
    assert picture[300, 502:603].tolist() == [list(BLUE)] * 101  # upper edge of (100.25, 60) to (120.75, 80)
    assert is_colour(picture, BLUE)[310:390, 510:590].sum() == 0  # the inside stays as it is
    assert is_colour(picture, RED)[100, 60]  # (10, 20) to (30, 50)
    assert is_colour(page[:, 1012:], (10, 20, 30)).any()  # the legend has the class without nuclei too


def test_what_was_not_analysed_is_hatched(three_nuclei: NucleusMap) -> None:
    damaged = dataclasses.replace(three_nuclei, not_analysed_level0=np.array([[140.0, 0, 200, 50]]))
    page = np.asarray(render_nuclei(np.full((100, 200, 3), 180, dtype=np.uint8), damaged, title="a.png"))
    picture = page[46 : 46 + 500, 12 : 12 + 1000]  # five times as large
    part = picture[:250, 700:]
    dark, bright = is_colour(part, (33, 37, 41)), is_colour(part, (255, 225, 25))
    assert (dark | bright).all()
    assert 0.45 < dark.mean() < 0.55
    assert not is_colour(picture[:, :700], (255, 225, 25)).any()
    assert not is_colour(picture[250:], (255, 225, 25)).any()


def test_given_colours_win(three_nuclei: NucleusMap) -> None:
    field = np.full((100, 200, 3), 180, dtype=np.uint8)
    page = np.asarray(render_nuclei(field, three_nuclei, title="a.png", colours={"lymphocyte": (1, 200, 1)}))
    assert not is_colour(page, BLUE).any()
    assert is_colour(page, (1, 200, 1)).any()


def test_nuclei_too_small_for_boxes_are_shown_as_density() -> None:
    """Two crowds on a slide of 40,000 px: tumour on the left, lymphocytes on the right, nothing between."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 2000, (4000, 2)) + np.repeat([[5000, 9000], [33000, 9000]], 2000, axis=0)
    nan = np.full(4000, np.nan, dtype=np.float32)
    nuclei = NucleusMap(
        boxes_level0=np.column_stack((low, low + 30)).astype(np.float32),
        labels=np.repeat([0, 1], 2000),
        score=np.ones(4000, dtype=np.float32),
        uncertainty=nan,
        distance_known=nan,
        distance_unknown=nan,
        classes=("tumour", "lymphocyte"),
        colours={"tumour": RED, "lymphocyte": BLUE},
        dimensions=(40_000, 20_000),
        mpp_xy=(0.25, 0.25),
        analysed_mm2=10.0,
        masked=True,
    )
    page = np.asarray(render_nuclei(np.full((1000, 2000, 3), 230, dtype=np.uint8), nuclei, title="s.svs"))
    picture = page[page.shape[0] - 1000 - 26 : page.shape[0] - 26, 26:2026].astype(int)
    left, right, between = picture[500, 300], picture[500, 1700], picture[500, 1000]
    assert left[0] - left[2] > 80
    assert right[2] - right[0] > 80
    assert between.tolist() == [230, 230, 230]


def test_no_nuclei_are_a_picture_too(three_nuclei: NucleusMap) -> None:
    columns = ("boxes_level0", "labels", "score", "uncertainty", "distance_known", "distance_unknown")
    empty = dataclasses.replace(
        three_nuclei, analysed_mm2=0.0, **{name: getattr(three_nuclei, name)[:0] for name in columns}
    )
    page = render_nuclei(np.full((100, 200, 3), 180, dtype=np.uint8), empty, title="a.png")
    assert page.width > 1000


def test_the_size_is_checked() -> None:
    with pytest.raises(ConfigError, match="max_px must be at least 64, but is 10"):
        NucleiOverlayWriter(max_px=10)
