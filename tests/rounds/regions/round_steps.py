# SPDX-License-Identifier: Apache-2.0
"""A site whose rounds tests go through: slides, a training as the ledger sees it, answers."""

import pytest

from tests.rounds.regions.colour_site import make_slides, record, tissue_site
from tests.rounds.regions.test_tissue_outputs import CLASSES
from tral_monai.rounds.ledger import ModelRecord


@pytest.fixture
def studies(tmp_path):
    """Slides a and b to train on and c held out, each of 12 regions."""
    return make_slides(tmp_path / "studies")


@pytest.fixture
def task(studies):
    """Four regions a round to train on, two to measure by; no model."""
    return tissue_site(studies, tissue_budget=4, tissue_val_budget=2)


def train(task, model=None, confusion=((6, 2, 2), (1, 3, 0), (0, 0, 2))):
    """What a training of the next round leaves in the ledger, and its model."""
    with task.ledger() as ledger:
        round_ = ledger.round + 1
        ledger.record_model(round_, ModelRecord("model.pt", "", 1.0, 1, None))
        if confusion is not None:
            ledger.record_evaluation(round_, "val", {"f1_macro": 0.5}, confusion, CLASSES)
    if model is not None:
        task.model_path.write_bytes(model.read_bytes())
    return round_


def asked(task, round_=0):
    with task.ledger() as ledger:
        return ledger.asked(round_)


def answer(task, *rows):
    for row in rows:
        x, y, width, height = row.region.bbox_level0
        record(task, row.region, row.purpose, ("Stroma", row.region.polygon))
        assert width * height > 0, (x, y)


# -- the query --------------------------------------------------------------------------------------------------------
