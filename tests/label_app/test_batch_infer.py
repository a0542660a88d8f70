# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("monailabel")

from tral_monai.errors import SlideOpenError
from tral_monai.label_app.batch_infer import SiteBatchInfer


class Slides:
    """What the task asks of a datastore."""

    def list_images(self) -> list[str]:
        return ["c", "a", "b"]

    def get_unlabeled_images(self, label_tag: Any = None, labels: Any = None) -> list[str]:
        return ["b"]


def infer(request: dict[str, Any], _: Slides) -> dict[str, Any]:
    assert request["save_label"] is True
    if request["image"] == "b":
        raise SlideOpenError("b.tif: a damaged file")
    return {"label": request["image"], "tag": "original", "params": {}}


def test_slides_go_one_after_the_other_and_a_bad_one_does_not_stop_the_rest() -> None:
    results = SiteBatchInfer()({"model": "tissue"}, Slides(), infer)
    assert list(results) == ["a", "b", "c"]
    assert results["a"] == {"label": "a", "tag": "original", "params": {}}
    assert results["b"] == {"error": "b.tif: a damaged file"}


@pytest.mark.parametrize(
    ("request_", "images"),
    [
        ({"images": "unlabeled"}, ["b"]),
        ({"images": ["c", "a"]}, ["a", "c"]),
        ({"max_batch_size": 1}, ["a"]),
        ({"max_batch_size": "2"}, ["a", "b"]),
    ],
)
def test_which_slides(request_: dict[str, Any], images: list[str]) -> None:
    assert list(SiteBatchInfer()({"model": "tissue", **request_}, Slides(), infer)) == images
