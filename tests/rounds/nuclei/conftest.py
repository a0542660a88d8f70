# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tral_monai.data.generated.fields import generate_fields
from tral_monai.data.nuclei.index import NucleusIndex
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.data.pool import Pool
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import Ledger

BACKBONE = "timm:mobilenetv3_small_050"
TINY: dict[str, Any] = {
    "strides": (4, 8, 16),
    "pool_level": False,
    "fpn_channels": 16,
    "anchor_ratios": (1.0,),
    "rpn_candidates": (60, 40),
    "proposals": (40, 30),
    "rpn_samples": 32,
    "roi_size": 3,
    "roi_samples": 16,
    "representation": 32,
    "projection": 8,
    "class_agnostic_regression": True,
    "max_detections": 20,
}
OPEN_SET = OpenSet(("lymphocyte", "tumour"), ("fat", "vessel"))


def row(number: int, names: tuple[str, ...], *, slide: str = "") -> dict[str, Any]:
    """A field of view of 64 px without an image; nucleus i is a box of 8 px at (10 * i, 20)."""
    left = 10.0 * np.arange(len(names), dtype=np.float32)
    boxes = np.stack([left, left * 0 + 20, left + 8, left * 0 + 28], axis=1).astype(np.float32).reshape(-1, 4)
    place = {"left_px": 64 * number, "top_px": 32, "width_px": 64, "height_px": 64, "mpp": 0.25, "fov_mpp": 0.25}
    named = {"id": number, "field": f"field_{number}", "slide": slide, "patient": "", "hospital": "", "image": ""}
    return {**named, **place, "boxes_px": boxes, "classes": names, "part": "train"}


@pytest.fixture
def table() -> pd.DataFrame:
    """Four fields of view: 0 and 2 with known nuclei, 1 with none, 3 without a nucleus."""
    return pd.DataFrame(
        [
            row(0, ("tumour", "fat", "ignored", "lymphocyte")),
            row(1, ("vessel", "fat"), slide="S1"),
            row(2, ("tumour", "tumour")),
            row(3, ()),
        ]
    )


@pytest.fixture
def make_table_engine(tmp_path, table):
    """A round engine over the table with a ledger in a temporary folder."""

    def make(rounds, *handlers, seed=0) -> RoundEngine:
        ledger = Ledger(tmp_path / "ledger.sqlite")
        return RoundEngine(rounds, Pool(table["id"].to_numpy()), ledger, tmp_path, seed=seed, handlers=handlers)

    return make


@pytest.fixture(scope="session")
def fields(tmp_path_factory) -> NucleusIndex:
    """Real pictures: 24 fields of view of 64 px in the pool and 8 in the test, five known classes."""
    folder = tmp_path_factory.mktemp("generated")
    generate_fields(folder, n_fields=8, field_px=128, mpp=0.5, patients=4, seed=0)
    return NucleusIndex("generated", folder, None, open_set="5+2", fov_px=64, folds=4)


def make_network(fields: NucleusIndex, **options: Any) -> OpenSetRCNN:
    """A tiny detector with random weights."""
    sizes = {**TINY, "fov_mpp": 0.5, "fov_px": 64, "seed": 0}
    return OpenSetRCNN(fields.classes, backbone=BACKBONE, **{**sizes, **options}).eval()


@pytest.fixture(scope="session")
def checkpoint(fields, tmp_path_factory) -> Path:
    """A target detector that predicts losses too."""
    return save_checkpoint(tmp_path_factory.mktemp("target") / "model.pt", make_network(fields, loss_prediction=True))


@pytest.fixture(scope="session")
def auxiliary(fields, tmp_path_factory) -> dict[str, Path]:
    """An auxiliary detector of each role; the one with prototypes has seen known nuclei alone."""
    folder = tmp_path_factory.mktemp("auxiliary")
    prototype = make_network(fields, role="prototype", seed=1)
    prototype.prototypes.ready[0] = True
    networks = {"prototype": prototype, "k_plus_one": make_network(fields, role="k_plus_one", seed=2)}
    return {role: save_checkpoint(folder / f"{role}.pt", network) for role, network in networks.items()}


@pytest.fixture
def make_engine(tmp_path, fields):
    """A round engine over the pictures' pool with a ledger in a temporary folder."""

    def make(rounds, *handlers, seed=0, folder=tmp_path) -> RoundEngine:
        ledger = Ledger(folder / "ledger.sqlite")
        return RoundEngine(rounds, Pool(fields.pool["id"].to_numpy()), ledger, folder, seed=seed, handlers=handlers)

    return make


class Trained:
    """A training that gives checkpoints made before."""

    def __init__(self, path: Path, auxiliary: Path | None = None) -> None:
        self._path, self._auxiliary = path, auxiliary

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self)

    def __call__(self, engine):
        engine.model_path = self._path
        if self._auxiliary is not None:
            engine.round_dir.mkdir(parents=True, exist_ok=True)
            (engine.round_dir / "auxiliary.pt").write_bytes(self._auxiliary.read_bytes())
