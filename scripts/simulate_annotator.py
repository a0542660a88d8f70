# SPDX-License-Identifier: Apache-2.0
"""Play the annotator of a real label server: a slide whose truth is a GeoJSON, rounds by several strategies, one table.

The server is started as a lab would start it, once per strategy and seed. Round by round the annotator takes every
region that is handed out, draws the truth in it, submits it as QuPath does, and starts the training. What each
published model is worth is measured on the outlines named ``test``, which are never handed out.
"""

from __future__ import annotations

import argparse
import csv
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shapely

from tral_monai.annotations.asap_xml_writer import write_asap_xml
from tral_monai.annotations.class_map import ClassMap
from tral_monai.annotations.files import read_annotations
from tral_monai.annotations.geometry import polygonal
from tral_monai.annotations.model import Annotation
from tral_monai.data.cohort import Cohort, CohortRow
from tral_monai.data.triplet_index import build_triplet_index

START_S, TRAINING_S = 120, 3600


class Server:
    """A label server on a free port of this machine."""

    def __init__(self, folder: Path, conf: dict[str, Any]) -> None:
        app = subprocess.run(
            [sys.executable, "-m", "tral_monai", "app", "--into", str(folder / "app")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        pairs = [word for key, value in conf.items() for word in ("--conf", key, str(value))]
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--host", "127.0.0.1"]
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [*command, "--studies", str(folder / "studies"), "--port", str(port), *pairs],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.ask("GET", "/info/")
                return
            except urllib.error.URLError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start; see {folder / 'server.log'}") from None
                time.sleep(0.5)

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> Any:
        """The JSON answer to a request."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type}, method=method)
        with urllib.request.urlopen(request, timeout=TRAINING_S) as response:
            return json.loads(response.read() or b"{}")

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@contextmanager
def running(folder: Path, conf: dict[str, Any]) -> Iterator[Server]:
    server = Server(folder, conf)
    try:
        yield server
    finally:
        server.stop()


class Annotator:
    """Knows the truth of one slide, and draws it where it is asked to."""

    def __init__(self, truth: Sequence[Annotation], slide_id: str, folder: Path) -> None:
        self._slide_id, self._file = slide_id, folder / "submission.xml"
        self._truth = [(a.class_name, polygonal(a)) for a in truth if a.name != "test"]
        self._drawn: list[Annotation] = []
        self.regions = 0

    def answer(self, server: Server, bbox: Sequence[int]) -> Any:
        """Draw what is in a box, and submit all that was drawn on the slide so far, as QuPath's "No" does."""
        x, y, width, height = bbox
        box = shapely.box(x, y, x + width, y + height)
        self._drawn.append(Annotation(box, "Region"))
        for name, area in self._truth:
            part = shapely.intersection(area, box)
            pieces = [piece for piece in shapely.get_parts(part) if piece.geom_type == "Polygon" and piece.area >= 64]
            self._drawn += [Annotation(piece, name) for piece in pieces]
        write_asap_xml(self._file, self._drawn)
        self.regions += 1
        boundary = "annotator"
        body = b"\r\n".join(
            [
                f"--{boundary}".encode(),
                b'Content-Disposition: form-data; name="label"; filename="submission.xml"',
                b"Content-Type: application/xml",
                b"",
                self._file.read_bytes(),
                f"--{boundary}".encode(),
                b'Content-Disposition: form-data; name="params"',
                b"",
                b"{}",
                f"--{boundary}--".encode(),
            ]
        )
        return server.ask(
            "PUT", f"/datastore/label?image={self._slide_id}", body, f"multipart/form-data; boundary={boundary}"
        )


def train(server: Server) -> dict[str, Any]:
    server.ask("POST", "/train/tissue", b"{}")
    deadline = time.monotonic() + TRAINING_S
    while time.monotonic() < deadline:
        task = server.ask("GET", "/train/")
        if task["status"] in ("DONE", "ERROR", "STOPPED"):
            if task["status"] != "DONE":
                raise SystemExit("the training ended with: " + "\n".join(task["details"]))
            return dict(server.ask("GET", "/info/")["train_stats"]["tissue"])
        time.sleep(2)
    raise SystemExit("the training does not end")


def run_arm(arguments: argparse.Namespace, strategy: str, seed: int, truth: list[Annotation]) -> list[dict[str, Any]]:
    folder = arguments.output_dir / f"{strategy}_seed{seed}"
    studies = folder / "studies"
    studies.mkdir(parents=True, exist_ok=False)
    (studies / arguments.slide.name).symlink_to(arguments.slide.absolute())
    (folder / arguments.truth.name).symlink_to(arguments.truth.absolute())
    with (studies / "slides.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "mpp", "areas"])
        writer.writerow([arguments.slide.name, arguments.mpp or "", f"../{arguments.truth.name}"])
    # The arms look at the same tiles: what the frozen network makes of them is computed once.
    own, shared = studies / "active_learning" / "tissue", arguments.output_dir.absolute() / "features"
    own.mkdir(parents=True)
    shared.mkdir(exist_ok=True)
    (own / "features").symlink_to(shared)
    classes = sorted({a.class_name for a in truth if a.class_name})
    conf = {
        "tasks": "tissue",
        "tissue_classes": json.dumps(classes),
        "tissue_strategy": strategy,
        "tissue_budget": arguments.budget,
        "tissue_val_budget": arguments.val_budget,
        "tissue_region_um": arguments.region_um,
        "tissue_warm_start": arguments.warm_start,
        "reserve_minutes": 600,
        "seed": seed,
    }
    rows = []
    with running(folder, conf) as server:
        annotator = Annotator(truth, arguments.slide.stem, folder)
        for round_ in range(arguments.rounds):
            asks = strategy if round_ else arguments.first_strategy or strategy
            while True:
                try:
                    sample = server.ask("POST", f"/activelearning/tissue_{asks}", b'{"client_id": "annotator"}')
                except urllib.error.HTTPError as error:
                    if error.code != 409:
                        raise SystemExit(error.read().decode()) from error
                    break
                annotator.answer(server, sample["bbox"])
            stats = train(server)
            score = evaluate(folder / "studies" / "active_learning" / "tissue" / "model.pt", arguments, classes)
            rows.append(
                {"strategy": strategy, "seed": seed, "training": round_ + 1, "regions": annotator.regions, **score}
            )
            print(json.dumps({**rows[-1], "validation": stats}), flush=True)
    return rows


def evaluate(model: Path, arguments: argparse.Namespace, classes: Sequence[str]) -> dict[str, float]:
    from tral_monai.metrics.classification import classification_metrics, confusion_matrix
    from tral_monai.rounds.predictor import TripletPredictor

    row = CohortRow(arguments.slide, arguments.truth, "P", "test", arguments.mpp, "test")
    table = build_triplet_index(Cohort((row,)), ClassMap.identity(classes))
    predictor = TripletPredictor(feature_dir=arguments.output_dir / "features")
    predicted = predictor.predict(model, table).probabilities.argmax(axis=1)
    numbers = {name: number for number, name in enumerate(classes)}
    matrix = confusion_matrix(table["class"].map(numbers).to_numpy(), predicted, len(classes))
    metrics = classification_metrics(matrix, classes)
    return {
        "test_f1_macro": round(float(metrics["f1_macro"]), 4),
        "test_accuracy": round(float(metrics["f1_micro"]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True, help="the slide")
    parser.add_argument("--truth", type=Path, required=True, help="GeoJSON with outlines named train, val and test")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel, where the slide records none")
    parser.add_argument("--strategies", nargs="+", default=["random", "tri_al_quota"])
    parser.add_argument("--first-strategy", help="of the first round, for all arms alike; else each arm's own begins")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4, help="trainings")
    parser.add_argument("--budget", type=int, default=6, help="regions to train on in a round")
    parser.add_argument("--val-budget", type=int, default=12, help="held-out regions, once")
    parser.add_argument("--region-um", type=float, default=128.0, help="side of a region")
    parser.add_argument(
        "--warm-start", choices=["true", "false", "null"], default="null", help="null: as the overlay says (default)"
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    truth = read_annotations(arguments.truth)
    rows = [
        row
        for strategy in arguments.strategies
        for seed in arguments.seeds
        for row in run_arm(arguments, strategy, seed, truth)
    ]
    with (arguments.output_dir / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("\n| training | " + " | ".join(arguments.strategies) + " |\n|---|" + "---|" * len(arguments.strategies))
    for round_ in range(1, arguments.rounds + 1):
        cells = []
        for strategy in arguments.strategies:
            scores = [r["test_f1_macro"] for r in rows if (r["strategy"], r["training"]) == (strategy, round_)]
            spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
            cells.append(f"{statistics.mean(scores):.3f}{spread}")
        print(f"| {round_} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
