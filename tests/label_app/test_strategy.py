# SPDX-License-Identifier: Apache-2.0
"""What a client that knows a slide only gets, without a server: regions between QuPath's two questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from tests.rounds.regions.colour_site import make_slides
from tral_monai.label_app.client_identity import RequestAtHand, request_at_hand
from tral_monai.label_app.strategy import ShownRegions, SiteStrategy
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite, TaskSite


@pytest.fixture
def task(tmp_path: Path) -> TaskSite:
    conf = {"tasks": "tissue", "tissue_classes": "Blood, Stroma, Muscle", "tissue_overlay": "null"}
    conf |= {"tissue_region_um": "64", "tissue_budget": "4", "tissue_val_budget": "0", "tissue_strategy": "random"}
    studies = make_slides(tmp_path / "slides")
    return AnnotationSite(studies, read_settings({**conf, "reserve_minutes": "10"})).tasks["tissue"]


def ask(strategy: SiteStrategy, image: str = "", peer: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    token = request_at_hand.set(RequestAtHand(peer, "POST", "/activelearning/tissue_random"))
    try:
        return strategy({"image": image, **more}, None)
    finally:
        request_at_hand.reset(token)


def strategy_of(task: TaskSite) -> SiteStrategy:
    return SiteStrategy(task, "random", "at random", ShownRegions())


def test_next_patch_gives_the_region_of_next_image_once(task: TaskSite) -> None:
    strategy = strategy_of(task)
    told = ask(strategy)
    assert (told["task"], told["round"], told["number_in_round"], told["purpose"]) == ("tissue", 0, 1, "train")
    shown = ask(strategy, told["id"])
    assert (shown["id"], shown["bbox"]) == (told["id"], told["bbox"])
    assert ask(strategy, told["id"])["bbox"] != told["bbox"]


def test_what_one_client_was_told_is_not_given_to_another(task: TaskSite) -> None:
    strategy = strategy_of(task)
    told = ask(strategy, peer="10.0.0.1")
    assert ask(strategy, told["id"], peer="10.0.0.2")["bbox"] != told["bbox"]
    assert ask(strategy, told["id"], peer="10.0.0.1")["bbox"] == told["bbox"]


def test_a_region_that_was_given_to_somebody_else_meanwhile_is_not_shown(task: TaskSite) -> None:
    strategy = strategy_of(task)
    told = ask(strategy)
    with task.ledger() as ledger:
        first = ledger.asked(0)[0]
        later = first.reserved_until + 1
        other = ledger.reserve_next(0, "somebody", seconds=600, now_s=later)
        assert other is not None
        assert other.region == first.region
    assert ask(strategy, told["id"])["bbox"] != told["bbox"]


def test_what_was_told_is_forgotten_once_it_is_answered(task: TaskSite) -> None:
    strategy = strategy_of(task)
    told = ask(strategy)
    with task.ledger() as ledger:
        region = ledger.asked(0)[0].region
        assert ledger.renew(region.id, "x", until_s=-1.0, seconds=60) is None
    from tral_monai.rounds.regions.region import RegionAnswer

    with task.ledger() as ledger:
        answers = [RegionAnswer(region, "train", (("Blood", region.polygon),))]
        ledger.record_submission("a.xml", sha256="1", slide=region.slide, client="c", answers=answers)
    assert ask(strategy, told["id"])["bbox"] != told["bbox"]
