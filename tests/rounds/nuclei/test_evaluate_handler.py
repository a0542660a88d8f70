# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from tests.rounds.nuclei.conftest import Trained
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import UnknownClassError
from tral_monai.metrics.detection import detection_metrics, truth_of
from tral_monai.rounds.nuclei.evaluate_handler import FieldEvaluateHandler
from tral_monai.rounds.nuclei.predictor import FieldPredictor


class CountingPredictor(FieldPredictor):
    """Counts its passes."""

    passes = 0

    def predict(self, *arguments, **options):
        """Detections, counted."""
        self.passes += 1
        return super().predict(*arguments, **options)


def test_the_metrics_of_the_rounds_detector(make_engine, fields, checkpoint):
    predictor, test = CountingPredictor(), fields.split("test")
    handler = FieldEvaluateHandler(
        predictor, {"val": fields.split("val"), "test": test}, fields.open_set, operating_score=0.1, without=["mitotic"]
    )
    engine = make_engine(1, Trained(checkpoint), handler)
    engine.run()
    expected = detection_metrics(
        FieldPredictor().predict(checkpoint, test).detections,
        *truth_of(test, fields.open_set),
        fields.classes,
        operating_score=0.1,
        without=["mitotic"],
    )
    got = engine.ledger.metrics(1, "test")
    assert got == pytest.approx(expected, nan_ok=True)
    assert {"map50", "map50_without_mitotic", "tumor_ap50", "fp_on_unknown", "recall"} <= set(got)
    assert engine.ledger.metrics(1, "val") == {}  # there is none
    assert engine.ledger.table("confusion").empty
    assert predictor.passes == 1
    engine.run()
    assert predictor.passes == 1  # what is recorded is not measured again


def test_a_class_without_test_nuclei_is_told_and_undefined(make_engine, fields, checkpoint, caplog):
    test = fields.split("test")
    for row, (boxes, names) in enumerate(zip(test["boxes_px"], test["classes"], strict=True)):
        keep = np.array([name != "mitotic" for name in names], dtype=bool)
        test.at[row, "boxes_px"] = boxes[keep]
        test.at[row, "classes"] = tuple(name for name in names if name != "mitotic")
    handler = FieldEvaluateHandler(FieldPredictor(), {"test": test}, fields.open_set)
    assert "split 'test' has no nucleus of class 'mitotic': its AP is undefined" in caplog.messages
    engine = make_engine(1, Trained(checkpoint), handler)
    engine.run()
    got = engine.ledger.metrics(1, "test")
    assert math.isnan(got["mitotic_ap50"])
    assert got["map50"] == pytest.approx(np.nanmean([got[f"{name}_ap50"] for name in fields.classes]))


def test_a_class_that_nobody_placed(fields):
    with pytest.raises(UnknownClassError, match="is neither known \\['tumor'\\] nor unknown \\[\\]"):
        FieldEvaluateHandler(FieldPredictor(), {"test": fields.split("test")}, OpenSet(("tumor",)))
