# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.nuclei.detections import Detections
from tral_monai.inference.nuclei.found_nuclei import FoundNuclei, evidential_uncertainty


def of_tiles(*tiles: int) -> FoundNuclei:
    n = len(tiles)
    values = np.arange(n, dtype=np.float32)
    return FoundNuclei(
        boxes_px=np.repeat(values[:, None], 4, axis=1),
        labels=np.arange(n),
        score=values,
        uncertainty=values,
        distances=np.repeat(values[:, None], 2, axis=1),
        tiles=np.array(tiles),
    )


def test_parts_are_put_in_the_order_of_their_tiles() -> None:
    found = FoundNuclei.concatenate([FoundNuclei.nothing(), of_tiles(5, 5), of_tiles(2, 7)]).of_tile_order()
    assert found.tiles.tolist() == [2, 5, 5, 7]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.keep(np.array([False, True, False, True])).tiles.tolist() == [5, 7]
    assert found.boxes_px.dtype == np.float32


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [([0.0, 0.0, 0.0], 1.0), ([3.0, 0.0, 0.0], 0.5), ([6.0, 3.0, 0.0], 0.25), ([297.0, 0.0, 0.0], 0.01)],
)
def test_uncertainty_is_k_over_the_dirichlet_strength(evidence: list[float], expected: float) -> None:
    found = Detections(
        offsets=np.array([0, 1]),
        boxes_px=np.zeros((1, 4)),
        labels=np.zeros(1),
        scores=np.ones(1),
        evidence=np.array([evidence]),
    )
    assert evidential_uncertainty(found).tolist() == pytest.approx([expected])


def test_without_evidence_it_is_not_known() -> None:
    found = Detections(offsets=np.array([0, 2]), boxes_px=np.zeros((2, 4)), labels=np.zeros(2), scores=np.ones(2))
    assert np.isnan(evidential_uncertainty(found)).all()
