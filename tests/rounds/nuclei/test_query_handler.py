# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tests.rounds.nuclei.conftest import OPEN_SET, Trained
from tral_monai.errors import ConfigError
from tral_monai.metrics.annotation_cost import AnnotationTime
from tral_monai.rounds.ledger import QueryRow
from tral_monai.rounds.nuclei.initial_labels import InitialFields
from tral_monai.rounds.nuclei.label_handler import FieldLabelHandler, record_field_answers
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.query_handler import FieldQueryHandler
from tral_monai.strategies.base import Selection, Strategy
from tral_monai.strategies.registry import get_strategy
from tral_monai.transforms.views import View


@pytest.fixture
def run(table, make_table_engine):
    """Rounds of query and answer over the four fields without any detector."""

    def start(rounds, strategy, *, first=None, **options):
        oracle = ArchiveFieldOracle(table, OPEN_SET, time=AnnotationTime(60, 0, 0))
        handlers = [InitialFields(table, oracle, OPEN_SET.known, count=first)] if first else []
        query = FieldQueryHandler(strategy, FieldPredictor(), table, OPEN_SET.known, **options)
        engine = make_table_engine(rounds, *handlers, Trained(None), query, FieldLabelHandler(oracle, table))
        engine.run()
        return engine

    return start


def test_so_many_fields_a_round_and_none_in_the_last(run, table):
    engine = run(2, get_strategy("random"), budget=3)
    query = engine.ledger.query(1)
    assert len({row.sample_id for row in query}) == 3
    places = table.set_index("id")
    for row in query:
        assert (row.x_level0, row.y_level0) == (places.at[row.sample_id, "left_px"], 32)
        assert row.slide == ("S1" if row.sample_id == 1 else f"field_{row.sample_id}")
        assert row.class_asked is None
    assert set(engine.ledger.labels()["sample_id"]) == {row.sample_id for row in query}
    assert engine.ledger.query(2) == []


@pytest.mark.parametrize(("fraction", "fields"), [(0.15, 1), (0.4, 2), (1.0, 4)])
def test_a_part_of_the_whole_pool(run, fraction, fields):
    engine = run(2, get_strategy("random"), query_fraction=fraction)
    assert len(engine.ledger.query(1)) == fields


def test_the_last_query_is_cut_to_the_images_that_are_left(run):
    engine = run(9, get_strategy("random"), budget=2, total_images=3)
    assert engine.ledger.labels()["round"].tolist() == [1, 1, 2]
    assert engine.round == 3  # what the last answer brought is still measured
    assert engine.stop_reason == "the budget of 3 images is spent"


def test_boxes_and_minutes_end_the_run_after_they_are_reached(run):
    engine = run(9, get_strategy("random"), budget=1, total_minutes=2)  # a minute an image
    assert len(engine.ledger.labels()) == 2
    assert engine.stop_reason == "the budget of 2 minutes is spent"


def test_boxes_are_known_once_they_are_drawn(run):
    engine = run(9, get_strategy("random"), budget=3, total_boxes=1)
    labels = engine.ledger.labels()
    assert len(labels) == 3
    assert labels["cost_labels"].sum() > 1
    assert engine.stop_reason == "the budget of 1 boxes is spent"


def test_an_empty_pool_ends_the_run(run):
    engine = run(9, get_strategy("random"), budget=3)
    assert len(engine.ledger.labels()) == 4
    assert engine.stop_reason == "the pool is empty"


def test_a_recorded_query_is_taken_as_it_stands(run, make_table_engine):
    # This strategy would need a detector, and there is none.
    row = QueryRow(2, "", 0, 0, None, 0.5, "recorded before the kill")
    make_table_engine(1).ledger.record_query(1, [row])
    engine = run(2, get_strategy("uncertainty", "nuclei"), budget=1)
    assert engine.ledger.query(1) == [row]
    assert engine.ledger.labels()["sample_id"].tolist() == [2]


class Declares(Strategy):
    """A plug-in that chooses nothing."""

    name = "declares"
    task = "nuclei"

    def _score(self, outputs):
        return np.zeros(len(outputs.ids))

    def _select(self, outputs, n, generator):
        return Selection.empty("enough")


def test_a_strategy_that_stops_asks_nothing(run):
    engine = run(3, Declares(), budget=1)
    assert (engine.round, engine.stop_reason) == (1, "enough")
    assert engine.ledger.labels().empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either budget or query_fraction, not None and None"),
        ({"budget": 1, "query_fraction": 0.1}, "give either budget or query_fraction, not 1 and 0.1"),
        ({"budget": 0}, "budget must be 1 field of view or more, but is 0"),
        ({"query_fraction": 1.5}, "query_fraction must lie in \\(0, 1\\], but is 1.5"),
        ({"budget": 1, "total_images": 0}, "total_images must be above 0, but is 0"),
        ({"budget": 1, "total_boxes": -1}, "total_boxes must be above 0, but is -1"),
        ({"budget": 1, "total_minutes": 0.0}, "total_minutes must be above 0, but is 0.0"),
    ],
)
def test_wrong_options(table, options, message):
    with pytest.raises(ConfigError, match=message):
        FieldQueryHandler(get_strategy("random"), FieldPredictor(), table, OPEN_SET.known, **options)


@pytest.fixture
def handler(fields):
    """The handler of a strategy over the pictures' pool, with one view and one noise level."""

    def make(name, **options):
        return FieldQueryHandler(
            get_strategy(name, "any" if name == "random" else "nuclei", **options),
            FieldPredictor(),
            fields.pool,
            fields.classes,
            budget=2,
            views=(View("flip", element=1),),
            noise_levels=(8.0,),
        )

    return make


@pytest.fixture
def engine(make_engine, fields, checkpoint, auxiliary):
    """A round engine in round 1 after three answers, with a detector and one of each auxiliary role to choose from."""
    engine = make_engine(2)
    record_field_answers(
        engine, 0, ArchiveFieldOracle(fields.pool, fields.open_set).label(ids(fields)[:3]), fields.pool
    )
    engine.round = 1
    return engine


def ids(fields):
    return fields.pool["id"].to_numpy()


ALWAYS = {"boxes_px", "labels", "scores", "probabilities"}


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("random", None, {}),
        ("density", None, {"detections": ALWAYS}),
        ("uncertainty", None, {"detections": ALWAYS}),
        ("coreset", None, {"features": None, "labelled_features": None}),
        ("laal", None, {"detections": ALWAYS | {"proposals_px"}}),
        ("ll4al", None, {"predicted_losses": None}),
        ("utss", None, {"detections": ALWAYS | {"evidence", "proposals_px"}}),
        ("cald", None, {"detections": ALWAYS, "view_detections": ALWAYS, "labelled_class_means": None}),
        (
            "openal",
            None,
            {
                "detections": ALWAYS | {"features", "proposals_px"},
                "known_reference": None,
                "unknown_reference": None,
            },
        ),
        ("pcss", "prototype", {"auxiliary_detections": ALWAYS | {"prototype_distances"}, "labelled_unknown": None}),
        (
            "osal_nd",
            "prototype",
            {
                "detections": ALWAYS | {"evidence", "proposals_px"},
                "auxiliary_detections": ALWAYS | {"prototype_distances"},
                "labelled_unknown": None,
            },
        ),
        ("lfosa", "k_plus_one", {"auxiliary_detections": ALWAYS | {"logits"}, "detections": ALWAYS | {"proposals_px"}}),
    ],
)
def test_only_what_the_strategy_names_is_brought_and_it_can_choose(
    handler, engine, fields, checkpoint, auxiliary, name, role, expected
):
    Trained(checkpoint, auxiliary.get(role))(engine)
    query = handler(name)
    outputs = query.outputs(engine)
    brought = {key for key, value in vars(outputs).items() if value is not None} - {"ids", "class_names"}
    assert brought == set(expected)
    assert outputs.ids.tolist() == ids(fields)[3:].tolist()
    for field, columns in expected.items():
        if columns is not None:
            found = getattr(outputs, field)
            for part in found if isinstance(found, tuple) else (found,):
                assert set(part.columns()) == columns
    assert len(query.strategy.select(outputs, 2, np.random.default_rng(0))) == 2


def test_noise_for_the_strategy_that_looks_at_stability(handler, engine, checkpoint):
    Trained(checkpoint)(engine)
    query = handler("laal", cue="stability")
    outputs = query.outputs(engine)
    assert [len(found) for found in outputs.noise_detections] == [21]
    assert len(query.strategy.select(outputs, 2, np.random.default_rng(0))) == 2


def test_what_is_told_of_the_answers(handler, engine, fields, checkpoint):
    Trained(checkpoint)(engine)
    seen = fields.pool.iloc[:3]
    answers = [name for names in seen["classes"] for name in fields.open_set.answers(names)]
    known = [name for name in answers if name in fields.classes]
    unknown = answers.count("unknown")
    assert known
    assert unknown
    outputs = handler("openal").outputs(engine)
    assert outputs.known_reference.shape == (len(known), 32)
    assert outputs.unknown_reference.shape == (unknown, 32)
    everything = FieldPredictor().roi_features(checkpoint, seen)
    np.testing.assert_allclose(outputs.unknown_reference, everything[np.array(answers) == "unknown"], atol=1e-4)
    means = handler("cald").outputs(engine).labelled_class_means
    assert means.tolist() == pytest.approx([known.count(name) / 3 for name in fields.classes])
    features = handler("coreset").outputs(engine)
    assert len(features.features) == 21
    assert len(features.labelled_features) == 3


def test_before_any_nucleus_was_ticked_unknown(handler, engine, checkpoint, auxiliary):
    # The unknown prototype is then infinitely far in the detector; strategies take finite numbers.
    Trained(checkpoint, auxiliary["prototype"])(engine)
    distances = handler("pcss").outputs(engine).auxiliary_detections.prototype_distances
    assert len(distances)
    assert np.isfinite(distances).all()
    assert (distances[:, 1] > 1e30).all()
    assert (distances[:, 0] < 1e6).all()
