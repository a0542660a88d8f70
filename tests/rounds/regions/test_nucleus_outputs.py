# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pytest
from shapely.geometry import box

from tests.inference.colour_slides import break_tile
from tests.rounds.nuclei.conftest import BACKBONE, TINY
from tests.rounds.regions.colour_site import make_slides, nuclei_site, record
from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS, fov_size_px
from tral_monai.errors import PoolError, StrategyError
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.nucleus_outputs import (
    commonest_class,
    missing_detector,
    nucleus_outputs,
    region_fields,
)
from tral_monai.rounds.regions.query import prepare_query
from tral_monai.rounds.regions.region import Region
from tral_monai.strategies.registry import get_strategy

CLASSES = ("tumour", "lymphocyte")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny target detector, and an auxiliary one of each role; that with prototypes has seen known nuclei alone."""
    folder = tmp_path_factory.mktemp("models")

    def save(name, **options):
        sizes = {**TINY, "fov_mpp": 0.25, "fov_px": 64}
        network = OpenSetRCNN(CLASSES, backbone=BACKBONE, **{**sizes, **options}).eval()
        if network.prototypes is not None:
            network.prototypes.ready[0] = True
        return save_checkpoint(folder / f"{name}.pt", network)

    return {
        "target": save("target", seed=0),
        "losses": save("losses", seed=0, loss_prediction=True),
        "prototype": save("prototype", seed=1, role="prototype"),
        "k_plus_one": save("k_plus_one", seed=2, role="k_plus_one"),
    }


@pytest.fixture
def task(tmp_path, models):
    """Two slides to train on and a held-out one, 192 fields of view of 64 px each, and a detector from elsewhere."""
    return nuclei_site(make_slides(tmp_path / "studies"), nuclei_checkpoint=str(models["target"]))


def put(task, model):
    task.auxiliary_path.parent.mkdir(parents=True, exist_ok=True)
    task.auxiliary_path.write_bytes(model.read_bytes())


def candidates(task, n=4):
    table = candidate_regions(task)
    return table.iloc[np.linspace(0, len(table) - 1, n).astype(int)].reset_index(drop=True)


def test_a_region_is_a_field_of_view(task):
    table = candidates(task)
    fields = region_fields(task, table)
    assert fields.columns.tolist() == list(FOV_COLUMNS)
    assert fields["id"].tolist() == table["id"].tolist()
    assert fields[["left_px", "top_px"]].to_numpy().tolist() == table[["x_level0", "y_level0"]].to_numpy().tolist()
    assert fov_size_px(fields).tolist() == [[64, 64]] * 4
    first = fields.iloc[0]
    assert (first["slide"], first["field"], first["patient"]) == ("a.tif", "a", "a")
    assert first["boxes_px"].shape == (0, 4)
    (task.site.studies / "a.tif").unlink()
    assert "a.tif" not in set(region_fields(task, table)["slide"])


def test_osal_nd_gets_both_detectors(task, models):
    put(task, models["prototype"])
    corner = box(10, 10, 20, 20)
    record(task, Region("a.tif", 0, 0, 64, 64), "train", ("tumour", corner), ("unknown", corner), ("unknown", corner))
    record(task, Region("c.tif", 0, 0, 64, 64), "val", ("unknown", corner))
    table = candidates(task)
    found = nucleus_outputs(task, get_strategy("osal_nd", "nuclei"), table).outputs
    fields = region_fields(task, table)
    expected = FieldPredictor().predict(models["target"], fields, want={"evidence", "proposals"}).detections
    np.testing.assert_allclose(found.detections.boxes_px, expected.boxes_px, atol=1e-3)
    np.testing.assert_allclose(found.detections.evidence, expected.evidence, atol=1e-4)
    auxiliary = FieldPredictor().predict(models["prototype"], fields).detections
    np.testing.assert_allclose(found.auxiliary_detections.boxes_px, auxiliary.boxes_px, atol=1e-3)
    assert found.labelled_unknown == 2  # what is held out teaches nothing
    assert found.ids.tolist() == table["id"].tolist()


def test_the_class_of_most_nuclei():
    # Image 0: two lymphocytes against one tumour cell; image 1: nothing that is sure; image 2: nothing at all.
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.9, 0.5, 0.3, 0.2], np.float32)
    found = Detections(
        offsets=np.array([0, 3, 4, 4]), boxes_px=np.tile(np.float32([0, 0, 9, 9]), (4, 1)), labels=labels, scores=scores
    )
    assert commonest_class(found, 3, CLASSES) == ["lymphocyte", "", ""]
    assert commonest_class(None, 2, CLASSES) == ["", ""]


def test_answers_serve_strategies_that_compare(task):
    record(task, Region("a.tif", 0, 0, 64, 64), "train", ("tumour", box(10, 10, 30, 30)), ("unknown", box(5, 5, 9, 9)))
    found = nucleus_outputs(task, get_strategy("openal", "nuclei"), candidates(task)).outputs
    assert (len(found.known_reference), len(found.unknown_reference)) == (1, 1)
    found = nucleus_outputs(task, get_strategy("coreset", "nuclei"), candidates(task)).outputs
    assert len(found.labelled_features) == 1


@pytest.mark.parametrize(
    ("name", "auxiliary", "message"),
    [
        ("osal_nd", None, "osal_nd needs an auxiliary detector of role 'prototype', and there is none yet; train with"),
        ("osal_nd", "k_plus_one", "of role 'prototype', but the one there has role 'k_plus_one'; train with strategy"),
        ("lfosa", "prototype", "of role 'k_plus_one', but the one there has role 'prototype'; train with strategy=lf"),
        ("ll4al", None, "ll4al needs a detector that has learnt to predict losses, and target.pt has not; train with"),
    ],
)
def test_a_detector_that_is_missing_or_another(task, models, name, auxiliary, message):
    if auxiliary is not None:
        put(task, models[auxiliary])
    with pytest.raises(StrategyError, match=message):
        nucleus_outputs(task, get_strategy(name, "nuclei"), candidates(task))


def test_what_is_there_is_not_missed(task, models, tmp_path):
    put(task, models["prototype"])
    assert missing_detector(task, get_strategy("osal_nd", "nuclei")) is None
    assert missing_detector(task, get_strategy("random", "any")) is None
    other = nuclei_site(task.site.studies, nuclei_checkpoint=str(models["losses"]), output_dir=str(tmp_path / "other"))
    assert missing_detector(other, get_strategy("ll4al", "nuclei")) is None


def test_no_model_at_all(tmp_path):
    task = nuclei_site(make_slides(tmp_path / "studies"))
    with pytest.raises(StrategyError, match="uncertainty needs a trained detector, and there is none yet; train first"):
        nucleus_outputs(task, get_strategy("uncertainty", "nuclei"), candidates(task))


def test_fields_that_cannot_be_read_are_left_out(task, caplog):
    table = candidate_regions(task).set_index(["slide", "x_level0", "y_level0"], drop=False)
    places = [("a.tif", 0, 0), ("b.tif", 0, 0), ("b.tif", 512, 512), ("c.tif", 0, 0)]
    table = table.loc[places].reset_index(drop=True)
    break_tile(task.site.studies / "b.tif", level=0, tile=0)  # the upper left 256 x 256 px
    with caplog.at_level(logging.WARNING):
        found = nucleus_outputs(task, get_strategy("uncertainty", "nuclei"), table)
    assert found.outputs.ids.tolist() == table.drop(1)["id"].tolist()
    assert "regions of b.tif are left out" in caplog.text


def test_nothing_to_read(task):
    table = candidates(task)
    for file in task.site.studies.glob("*.tif"):
        file.write_bytes(b"no slide any more")
    with pytest.raises(PoolError, match="none of the 4 regions could be read"):
        nucleus_outputs(task, get_strategy("uncertainty", "nuclei"), table)


def test_rounds_of_osal_nd(task, models):
    # A given detector without an auxiliary one: the first round covers tissue, and says why.
    prepare_query(task)
    with task.ledger() as ledger:
        (first, *_) = ledger.asked(0)
        assert "first round, and osal_nd needs an auxiliary detector of role 'prototype'" in first.reason
        ledger.record_model(1, ModelRecord("model.pt", "", 1.0, 1, None))
    with pytest.raises(StrategyError, match="train with strategy=osal_nd first"):
        prepare_query(task)
    put(task, models["prototype"])
    other = nuclei_site(
        task.site.studies, nuclei_checkpoint=str(models["target"]), nuclei_max_candidates=12, nuclei_val_budget=0
    )
    assert prepare_query(other) == 1
    with task.ledger() as ledger:
        rows = ledger.asked(1)
    assert len(rows) == 2
    assert all(row.purpose == "train" for row in rows)
