# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tests.rounds.conftest import CLASSES, Trained
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.rounds.initial_labels import InitialLabels
from tral_monai.rounds.label_handler import LabelHandler
from tral_monai.rounds.ledger import LabelRow, QueryRow
from tral_monai.rounds.oracles import ArchiveOracle, ClassRequestOracle, PseudoLabelOracle
from tral_monai.rounds.predictor import TripletPredictor
from tral_monai.rounds.query_handler import QueryHandler
from tral_monai.strategies.base import Selection, Strategy
from tral_monai.strategies.registry import get_strategy

# False-negative rates on val: Blood 0 of 4, Muscle 1 of 4, Stroma 3 of 4.
CONFUSION = [[4, 0, 0], [1, 3, 0], [3, 0, 1]]


@pytest.fixture
def run(make_engine, index):
    """Run rounds of query and answer over the twelve tiles with no model at all."""

    def start(rounds, strategy, budget, *, oracle=ClassRequestOracle, first=(), **options):
        answers = oracle(index, CLASSES)
        chosen = strategy if isinstance(strategy, Strategy) else get_strategy(strategy)
        query = QueryHandler(chosen, budget, TripletPredictor(), answers, index, CLASSES, **options)
        engine = make_engine(
            rounds, *first, Trained(None, CLASSES, CONFUSION), query, LabelHandler(answers, index, CLASSES)
        )
        engine.run()
        return engine

    return start


def test_a_class_request_runs_no_model_and_asks_by_false_negative_rate(run, index):
    # 4 labels are shared 0 : 0.25 : 0.75, that is 0, 1 and 3.
    engine = run(2, "tri_al_iter", 4)
    query = engine.ledger.query(1)
    assert sorted(row.class_asked for row in query) == ["Muscle", "Stroma", "Stroma", "Stroma"]
    assert {row.class_asked: row.score for row in query} == {"Muscle": 0.25, "Stroma": 0.75}
    assert {row.reason for row in query if row.class_asked == "Stroma"} == {"FNR of Stroma is 0.75: 3 of 4 asked"}
    place = index.set_index("id")
    for row in query:
        assert (row.slide, row.x_level0, row.y_level0) == ("a.tif", place.at[row.sample_id, "x_level0"], 64)
        assert place.at[row.sample_id, "class"] == row.class_asked
    labels = engine.ledger.labels()
    assert set(labels["sample_id"]) == {row.sample_id for row in query}
    assert engine.ledger.query(2) == []  # the last round asks nothing


def test_the_draw_comes_from_the_seed_and_the_round(run, make_engine, index):
    engine = run(3, "random", 3)
    chosen = [[row.sample_id for row in engine.ledger.query(r)] for r in (1, 2)]
    again = make_engine(3)
    again.round = 2
    outputs = QueryHandler(
        get_strategy("random"), 3, TripletPredictor(), ArchiveOracle(index, CLASSES), index, CLASSES
    ).outputs(again)
    left = outputs.take(np.flatnonzero(~np.isin(outputs.ids, chosen[0])))
    assert get_strategy("random").select(left, 3, again.generator("query")).ids.tolist() == chosen[1]


def test_the_total_budget_counts_the_first_labels(run, index):
    first = InitialLabels(index, ArchiveOracle(index, CLASSES), CLASSES, per_class=1)
    engine = run(5, "random", 4, total_budget=8, first=[first])
    assert engine.ledger.labels()["round"].tolist() == [0] * 3 + [1] * 4 + [2]
    assert engine.round == 3  # what the last label brought is still measured
    assert engine.stop_reason == "the budget of 8 labels is spent"


def test_a_pool_that_is_empty_ends_the_run(run):
    engine = run(5, "random", 20)
    assert len(engine.ledger.query(1)) == 12
    assert engine.round == 2
    assert engine.stop_reason == "the pool is empty"
    assert engine.ledger.info()["stop_reason"] == "the pool is empty"


def test_what_the_annotator_declined_is_not_asked_again(run, make_engine):
    make_engine(1).ledger.record_labels(0, [LabelRow(i, "a.tif", 0, 0, None, 1.0, 0.1) for i in range(2, 12)])
    assert sorted(row.sample_id for row in run(2, "random", 20).ledger.query(1)) == [0, 1]


def test_a_strategy_that_stops_asks_nothing(run):
    # 8 of 12 are asked of Stroma, 9 of 12 of it exceed its pool of 6.
    engine = run(5, "tri_al_ood", 12)
    assert engine.round == 1
    assert engine.stop_reason == "the pool of Stroma holds 6 of 9 samples asked for"
    assert engine.ledger.labels().empty


class Declares(Strategy):
    """A plug-in that chooses the first n samples, none for n = 0, with a reason to stop or without."""

    name = "declares"

    def __init__(self, n, stop):
        self._n, self._stop = n, stop

    def _score(self, outputs):
        return np.zeros(len(outputs.ids))

    def _select(self, outputs, n, generator):
        k = self._n
        none = np.full(k, -1, dtype=np.int64)
        return Selection(ids=outputs.ids[:k], scores=np.zeros(k), class_asked=none, reasons=("",) * k, stop=self._stop)


@pytest.mark.parametrize(
    ("n", "stop", "reason"), [(0, None, "declares chose nothing"), (0, "enough", "enough"), (2, "enough", "enough")]
)
def test_a_stop_spends_no_budget(run, n, stop, reason):
    engine = run(3, Declares(n, stop), 4)
    assert (engine.round, engine.stop_reason) == (1, reason)
    assert engine.ledger.query(1) == []
    assert engine.ledger.labels().empty


def test_where_no_class_is_asked_none_is_recorded(run):
    assert [row.class_asked for row in run(2, "random", 2).ledger.query(1)] == [None, None]


def test_a_recorded_query_is_taken_as_it_stands(run, make_engine):
    # 'uncertainty' would need a model, and there is none.
    row = QueryRow(7, "a.tif", 960, 64, None, 0.5, "recorded before the kill")
    make_engine(1).ledger.record_query(1, [row])
    engine = run(2, "uncertainty", 4)
    assert engine.ledger.query(1) == [row]
    assert engine.ledger.labels()["sample_id"].tolist() == [7]


def test_an_archive_has_no_class_pools(run):
    with pytest.raises(StrategyError, match="tri_al_iter needs 'pool_classes'.*brought by the oracle 'class_request'"):
        run(2, "tri_al_iter", 4, oracle=ArchiveOracle)


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("random", set()),
        ("tri_al_iter", {"pool_classes", "false_negatives", "positives"}),
        ("uncertainty", {"probabilities", "features"}),
        ("tri_al_entropy", {"probabilities", "features", "pool_classes", "class_distribution"}),
        ("kcenter", {"probabilities", "features", "labelled_features"}),
    ],
)
def test_only_what_the_strategy_names_is_brought(make_tile_engine, tiles, checkpoint, strategy, fields):
    engine = make_tile_engine(2)
    engine.round, engine.model_path = 1, checkpoint
    engine.pool.label(engine.pool.ids[:-3])  # few are left, so that no test waits for the backbone
    if strategy != "kcenter":
        outputs = handler(tiles, strategy, ClassRequestOracle)
        engine.ledger.record_evaluation(1, "val", {}, np.eye(5, dtype=int).tolist(), tiles.classes)
    else:
        engine.pool.load_state_dict(
            {"labelled": engine.pool.ids[:2].tolist(), "rejected": engine.pool.ids[5:].tolist()}
        )
        outputs = handler(tiles, strategy, ArchiveOracle)
    found = outputs.outputs(engine)
    every = {"probabilities", "features", "pool_classes", "false_negatives", "positives"}
    every |= {"labelled_counts", "class_distribution", "labelled_features"}
    assert {name for name in every if getattr(found, name) is not None} == fields
    assert found.class_names == tiles.classes
    assert found.ids.tolist() == engine.pool.unlabelled.tolist()


def handler(tiles, strategy, oracle, *, feature_dir=None, budget=4):
    return QueryHandler(
        get_strategy(strategy),
        budget,
        TripletPredictor(feature_dir=feature_dir),
        oracle(tiles.pool, tiles.classes),
        tiles.pool,
        tiles.classes,
    )


def test_counts_by_class(make_engine, index):
    engine = make_engine(2)
    engine.round = 1
    engine.ledger.record_evaluation(1, "val", {}, CONFUSION, CLASSES)
    given = [(0, "Stroma"), (1, "Stroma"), (2, "Muscle"), (3, None)]
    engine.ledger.record_labels(0, [LabelRow(i, "a.tif", 0, 0, name, 1.0, 0.1) for i, name in given])

    class Wants(Declares):
        wants = frozenset({"false_negatives", "positives", "labelled_counts", "class_distribution"})

    oracle = ArchiveOracle(index, CLASSES)
    outputs = QueryHandler(Wants(1, None), 4, TripletPredictor(), oracle, index, CLASSES).outputs(engine)
    assert outputs.false_negatives.tolist() == [0, 1, 3]
    assert outputs.positives.tolist() == [4, 4, 4]
    assert outputs.labelled_counts.tolist() == [0, 1, 2]  # as given; what was declined does not count
    assert outputs.class_distribution.tolist() == [2, 4, 6]


def test_pseudo_labels_fill_the_quota_and_the_truth_comes_back(make_tile_engine, tiles, checkpoint, feature_dir):
    oracle = PseudoLabelOracle(tiles.pool, tiles.classes)
    query = handler(tiles, "tri_al_iter", PseudoLabelOracle, feature_dir=feature_dir, budget=10)
    confusion = (4 * np.eye(5, dtype=int) + np.roll(np.eye(5, dtype=int), 1, axis=1)).tolist()  # every rate is 1/5
    engine = make_tile_engine(
        2,
        Trained(checkpoint, tiles.classes, confusion),
        query,
        LabelHandler(oracle, tiles.pool, tiles.classes),
    )
    engine.run()
    probabilities = TripletPredictor(feature_dir=feature_dir).predict(checkpoint, tiles.pool).probabilities
    predicted = dict(zip(tiles.pool["id"], probabilities.argmax(axis=1), strict=True))
    asked = engine.ledger.query(1)
    assert len(asked) == 10
    assert len({row.class_asked for row in asked}) > 1
    assert [row.class_asked for row in asked] == [tiles.classes[predicted[row.sample_id]] for row in asked]
    truth = tiles.pool.set_index("id")["class"]
    labels = engine.ledger.labels().set_index("sample_id")["class_given"]
    assert labels.to_dict() == truth.loc[labels.index].to_dict()
    assert labels.loc[[row.sample_id for row in asked]].tolist() != [row.class_asked for row in asked]


def test_k_centre_starts_from_the_labelled_samples(make_tile_engine, tiles, checkpoint, feature_dir):
    query = handler(tiles, "kcenter", ArchiveOracle, feature_dir=feature_dir, budget=1)
    first = InitialLabels(
        tiles.pool, ArchiveOracle(tiles.pool, tiles.classes), tiles.classes, per_class=2, split="train"
    )
    engine = make_tile_engine(2, first, Trained(checkpoint, tiles.classes, None), query)
    engine.run()
    rows = tiles.pool.set_index("id", drop=False)
    predictor = TripletPredictor(feature_dir=feature_dir)
    labelled = predictor.predict(checkpoint, rows.loc[engine.pool.labelled]).features.astype(float)
    features = predictor.predict(checkpoint, rows.loc[engine.pool.unlabelled]).features.astype(float)
    distance = np.linalg.norm(features[:, None] - labelled[None], axis=2).min(axis=1)
    (asked,) = engine.ledger.query(1)
    assert asked.sample_id == engine.pool.unlabelled[distance.argmax()]
    assert asked.score == pytest.approx(distance.max(), rel=1e-3)


def test_quotas_need_an_evaluation_on_val(make_engine, index):
    oracle = ClassRequestOracle(index, CLASSES)
    query = QueryHandler(get_strategy("tri_al_iter"), 4, TripletPredictor(), oracle, index, CLASSES)
    with pytest.raises(ConfigError, match="round 1 has no evaluation on split 'val', from which class quotas come"):
        make_engine(2, Trained(None, CLASSES, None), query).run()


def test_a_strategy_that_needs_a_model_without_one(run):
    with pytest.raises(AssertionError, match="attach it before QueryHandler"):
        run(2, "uncertainty", 4)


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (0, {}, "a budget must be 1 label or more, but is 0 a round, None in all"),
        (5, {"total_budget": 0}, "a budget must be 1 label or more, but is 5 a round, 0 in all"),
    ],
)
def test_budgets_below_one(index, budget, options, message):
    with pytest.raises(ConfigError, match=message):
        QueryHandler(
            get_strategy("random"),
            budget,
            TripletPredictor(),
            ArchiveOracle(index, CLASSES),
            index,
            CLASSES,
            **options,
        )
