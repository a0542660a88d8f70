# SPDX-License-Identifier: Apache-2.0
"""What a round keeps of its query for the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.rounds.nuclei.conftest import Trained
from tral_monai.errors import CheckpointError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.nuclei.initial_labels import InitialFields
from tral_monai.rounds.nuclei.label_handler import FieldLabelHandler
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.query_handler import FieldQueryHandler
from tral_monai.rounds.nuclei.query_record import QueryRecordHandler
from tral_monai.strategies.registry import get_strategy


@pytest.fixture
def run(fields, checkpoint, auxiliary, make_engine):
    """Two rounds of a random strategy; gives the engine. ``role`` is that of the auxiliary detector of round 1."""

    def make(role=None):
        predictor, oracle = FieldPredictor(), ArchiveFieldOracle(fields.pool, fields.open_set)
        engine = make_engine(
            2,
            InitialFields(fields.pool, oracle, fields.classes, count=3),
            Trained(checkpoint, auxiliary[role] if role else None),
            FieldQueryHandler(get_strategy("random"), predictor, fields.pool, fields.classes, budget=2),
            QueryRecordHandler(predictor, fields.pool, fields.classes, max_fields=2),
            FieldLabelHandler(oracle, fields.pool),
        )
        if role:
            engine.ledger.record_auxiliary_model(1, role, ModelRecord("auxiliary.pt", "0", 1.0, 1, None))
        engine.run()
        return engine

    return make


def test_the_boxes_in_the_fields_asked_for_are_those_of_the_detector(run, fields, checkpoint):
    engine = run()
    kept = pd.read_parquet(engine.output_dir / "rounds" / "round_001" / "query_predictions.parquet")
    assert list(kept.columns) == ["sample_id", "xmin", "ymin", "xmax", "ymax", "label", "score"]
    ids = [row.sample_id for row in engine.ledger.query(1)]
    table = fields.pool.set_index("id", drop=False).loc[ids]
    found = FieldPredictor().predict(checkpoint, table).detections
    assert len(found.scores) > 0
    np.testing.assert_allclose(kept[["xmin", "ymin", "xmax", "ymax"]], found.boxes_px)
    assert kept["sample_id"].tolist() == np.repeat(ids, found.counts).tolist()
    assert kept["label"].tolist() == [fields.classes[k] for k in found.labels]
    assert not (engine.output_dir / "rounds" / "round_001" / "roi_features.npz").exists()  # no auxiliary detector


def test_nothing_is_kept_of_the_last_round_which_asks_nothing(run):
    assert not (run().output_dir / "rounds" / "round_002" / "query_predictions.parquet").exists()


def test_embeddings_are_those_of_nuclei_that_the_auxiliary_detector_was_trained_on(run, auxiliary):
    engine = run("prototype")
    with np.load(engine.output_dir / "rounds" / "round_001" / "roi_features.npz") as archive:
        kept = {name: archive[name] for name in archive.files}
    answers = engine.ledger.nuclei(before_round=1)
    told = answers[answers["answer"] != "ignored"].sort_values(["sample_id", "nucleus"])
    first_and_last = told[told["sample_id"].isin([told["sample_id"].min(), told["sample_id"].max()])]
    assert kept["answer"].tolist() == first_and_last["answer"].tolist()  # two of the three fields that were answered
    assert kept["features"].shape == (len(first_and_last), 8)
    assert np.isfinite(kept["features"]).all()
    points = load_checkpoint(auxiliary["prototype"]).prototypes.points.detach().numpy()
    np.testing.assert_array_equal(kept["prototypes"], points)


def test_an_auxiliary_detector_without_prototypes_leaves_no_embeddings(run):
    assert not (run("k_plus_one").output_dir / "rounds" / "round_001" / "roi_features.npz").exists()


def test_embeddings_are_the_projection_of_the_roi_features(fields, auxiliary):
    predictor, table = FieldPredictor(), fields.pool.head(2)
    found, _ = predictor.embeddings(auxiliary["prototype"], table)
    features = torch.from_numpy(predictor.roi_features(auxiliary["prototype"], table))
    project = load_checkpoint(auxiliary["prototype"]).prototypes.project
    np.testing.assert_allclose(found, project(features).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_target_detector_has_no_embeddings(fields, checkpoint):
    with pytest.raises(CheckpointError, match="has no prototypes; give a detector of role 'prototype'"):
        FieldPredictor().embeddings(checkpoint, fields.pool.head(1))
