# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the label server, and of its training, in the middle of each step: no submitted label, no budget is lost.

The quick variant kills once among saves and once a training; the slow ones kill at every other step, at many moments.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from tests.label_app.annotator import Annotator, tiny_cohort_truth
from tests.label_app.qupath_requests import QuPath, QuPathError
from tests.label_app.server_process import LabelServer, running_server
from tests.label_app.sites import SMALL_TISSUE, make_studies
from tral_monai.data.generated.layout import CLASSES
from tral_monai.rounds.regions.region_ledger import RegionLedger

SPLITS = {"A-01": "train", "B-01": "train", "A-02": "val"}
BUDGET, VAL_BUDGET = 8, 2
CONF = {
    "tasks": "tissue",
    "tissue_classes": list(CLASSES),
    "tissue_strategy": "tri_al_quota",
    "tissue_budget": BUDGET,
    "tissue_val_budget": VAL_BUDGET,
    "tissue_region_um": 64,
    "tissue_max_candidates": 30,
    "tissue_overlay": "null",
    "tissue_overrides": SMALL_TISSUE,
}
WAIT_S = 60.0
BROKEN = (OSError, ValueError)  # what a client sees of a server that dies: no connection, or half an answer


class Site:
    """A site whose server dies and comes back; remembers what the server acknowledged.

    Attributes:
        handed: every sample that a client was given.
        saved: slide and box of every region whose label was acknowledged.
    """

    def __init__(self, folder: Path, cohort: Path) -> None:
        self.folder, self.studies = folder, make_studies(folder / "studies", cohort, SPLITS)
        self.annotator = Annotator(tiny_cohort_truth())
        self.handed: list[dict[str, Any]] = []
        self.saved: set[tuple[Any, ...]] = set()

    def serve(self) -> Any:
        """A server for a ``with`` block."""
        return running_server(self.folder, self.studies, CONF)

    def ask(self, server: LabelServer) -> dict[str, Any]:
        """The next sample, remembered."""
        sample = QuPath(server.url).next_image("tissue_tri_al_quota")
        self.handed.append(sample)
        return sample

    def answer(self, server: LabelServer, sample: dict[str, Any]) -> None:
        """Draw and submit a region; it counts once the server has said so."""
        self.annotator.submit_region(QuPath(server.url), sample)
        self.saved.add(key(sample))

    def ledger(self) -> RegionLedger:
        return RegionLedger(self.studies / "active_learning" / "tissue" / "ledger.sqlite")

    def check(self, server: LabelServer) -> None:
        """All that was acknowledged is there, is counted once, and no budget is spent twice."""
        server.get("/info/")
        deadline = time.monotonic() + WAIT_S
        while True:  # at its start the server takes in what the killed one had stored and not yet read
            with self.ledger() as ledger:
                answered = [(a.region.slide.removesuffix(".tif"), *a.region.bbox_level0) for a in ledger.answers()]
                asked, round_ = ledger.asked(), ledger.round
            if self.saved <= {*answered} or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert self.saved <= {*answered}
        assert len(answered) == len({*answered})
        of_round = {number: [a for a in asked if a.round == number] for number in range(round_ + 1)}
        assert len(of_round[0]) in (0, BUDGET + VAL_BUDGET)
        assert all(len(of_round[number]) in (0, BUDGET) for number in range(1, round_ + 1))
        keys = [key(sample) for sample in self.handed]
        assert len(keys) == len({*keys}), "a region was handed out twice while it was reserved"

    def finish_round(self, server: LabelServer) -> None:
        """Answer what was handed out and not answered, then everything that is open."""
        for sample in self.handed:
            if key(sample) not in self.saved and sample["round"] == self.round():
                self.answer(server, sample)
        while True:
            try:
                sample = self.ask(server)
            except QuPathError as error:
                if error.status != 409:
                    raise
                return
            self.answer(server, sample)

    def round(self) -> int:
        with self.ledger() as ledger:
            return ledger.round


def key(sample: dict[str, Any]) -> tuple[Any, ...]:
    return (sample["id"], *sample["bbox"])


def die_during(server: LabelServer, act: Callable[[], object], after_s: float) -> None:
    """Kill the server while a client waits for an answer."""

    def quietly() -> None:
        with suppress(*BROKEN):
            act()

    thread = threading.Thread(target=quietly)
    thread.start()
    time.sleep(after_s)
    server.kill()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def wait_for(server: LabelServer, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + 2 * WAIT_S
    while (task := server.get("/train/"))["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.1)
    assert task["status"] == status, "\n".join(task["details"])
    return dict(task)


def training_process(server: LabelServer) -> Any:
    """The training's own process, once it is there."""
    deadline = time.monotonic() + WAIT_S
    while not (found := server.children("train")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def wait_for_line(server: LabelServer, words: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while words not in server.log:
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.02)


def save_until_killed(site: Site, server: LabelServer, after_s: float) -> None:
    """Submit one region after the other, of those that were handed out, until the server dies."""
    open_ = [sample for sample in site.handed if key(sample) not in site.saved]

    def save_all() -> None:
        for sample in open_:
            site.answer(server, sample)

    die_during(server, save_all, after_s)


def test_a_server_killed_among_labels_and_a_training_killed_alone_lose_nothing(tiny_cohort, tmp_path):
    site = Site(tmp_path, tiny_cohort)
    with site.serve() as server:
        for _ in range(6):
            site.ask(server)
        save_until_killed(site, server, 0.6)
    with site.serve() as server:
        site.check(server)
        site.finish_round(server)
        assert len(site.saved) == BUDGET + VAL_BUDGET
        QuPath(server.url).train("tissue")
        training_process(server).kill()
        wait_for(server, "ERROR")
        site.check(server)
        assert site.round() == 0
        with pytest.raises(QuPathError, match="409.*train"):  # the spent round is spent once
            site.ask(server)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_while_labels_are_saved(tiny_cohort, tmp_path, seed):
    draw, site = random.Random(seed), Site(tmp_path, tiny_cohort)
    for _ in range(3):
        with site.serve() as server:
            for _ in range(3):
                site.ask(server)
            save_until_killed(site, server, draw.uniform(0.0, 1.5))
    with site.serve() as server:
        site.check(server)
        site.finish_round(server)
        assert len(site.saved) == BUDGET + VAL_BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.2, 1.0, 3.0])
def test_killed_while_the_query_is_made_and_regions_are_handed_out(tiny_cohort, tmp_path, after_s):
    site = Site(tmp_path, tiny_cohort)
    with site.serve() as server:
        die_during(server, lambda: [site.ask(server) for _ in range(5)], after_s)
    with site.serve() as server:
        while True:
            try:
                site.ask(server)
            except QuPathError as error:
                assert error.status == 409  # noqa: PT017 - what comes before is the loop's work
                break
        site.check(server)
        # At most the region of the answer that never arrived is still kept for the one who asked.
        assert BUDGET + VAL_BUDGET - 1 <= len(site.handed) <= BUDGET + VAL_BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("line", ["target: epoch 1/", "new model", "is published", "is open"])
@pytest.mark.parametrize("who", ["training", "server"])
def test_killed_at_each_stage_of_a_training(tiny_cohort, tmp_path, line, who):
    site = Site(tmp_path, tiny_cohort)
    with site.serve() as server:
        site.finish_round(server)
        QuPath(server.url).train("tissue")
        process = training_process(server)
        wait_for_line(server, line)
        if who == "server":
            server.kill()
        else:
            with suppress(Exception):  # it may just have ended by itself
                process.kill()
            while server.get("/train/")["status"] == "RUNNING":
                time.sleep(0.1)
            site.check(server)
    with site.serve() as server:
        site.check(server)
        if site.round() == 0:
            QuPath(server.url).train("tissue")
            wait_for(server, "DONE")
        assert site.round() == 1
        assert site.ask(server)["round"] == 1
        stats = server.get("/info/")["train_stats"]["tissue"]
        assert stats["published_round"] == 1
        assert QuPath(server.url).infer("tissue", "A-02", (256, 256, 256, 256)) is not None
        site.check(server)


@pytest.mark.slow
def test_two_trainings_posted_in_one_moment_spend_one_budget(tiny_cohort, tmp_path):
    """MONAI Label queues the second of two that are posted before the first has begun: it finds nothing new."""
    site = Site(tmp_path, tiny_cohort)
    with site.serve() as server:
        site.finish_round(server)
        posted = [server.answer("POST", "/train/tissue", {})[0] for _ in range(2)]
        assert posted[0] == 200
        assert posted[1] in (200, 409, 429)
        deadline = time.monotonic() + 2 * WAIT_S
        while any(task["status"] in ("SUBMITTED", "RUNNING") for task in server.get("/train/?all=true")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert site.round() == 1
        site.check(server)


@pytest.mark.slow
def test_killed_while_a_slide_is_inferred(tiny_cohort, tmp_path):
    site = Site(tmp_path, tiny_cohort)
    with site.serve() as server:
        site.finish_round(server)
        QuPath(server.url).train("tissue")
        wait_for(server, "DONE")
        die_during(server, lambda: QuPath(server.url).infer("tissue", "A-02", (0, 0, 0, 0)), 2.0)
    with site.serve() as server:
        site.check(server)
        assert QuPath(server.url).infer("tissue", "A-02", (256, 256, 512, 512)) is not None
        assert site.ask(server)["round"] == 1
