# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.inference.export.small_models import CLASSES, small_tri_cnn
from tral_monai.errors import AgreementError, ConfigError
from tral_monai.inference.export.check_export import Floors, check_formats
from tral_monai.inference.export.formats import FORMATS, chosen_formats
from tral_monai.inference.export.tissue import TissueExport
from tral_monai.networks.checkpoint import load_checkpoint


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_computes_what_the_checkpoint_does_for_batches_of_any_size(name, in_all_formats, checkpoint):
    run = FORMATS[name].open(in_all_formats[0] / "models")
    network = load_checkpoint(checkpoint)
    tiles = np.random.default_rng(5).integers(0, 256, (7, 6, 128, 128), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(tiles)).numpy()
    assert expected.std(axis=0).min() > 0.05
    for count in (1, 7):
        (found,) = run(tiles[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-4)


def test_onnx_says_what_it_is(in_all_formats):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        str(in_all_formats[0] / "models" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (image,), (pred,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [6, 128, 128])
    assert (pred.name, pred.type, pred.shape[1:]) == ("pred", "tensor(float)", [3])
    assert not isinstance(image.shape[0], int)
    inside = session.get_modelmeta().custom_metadata_map
    assert json.loads(inside["classes"]) == list(CLASSES)
    assert json.loads(inside["magnifications"]) == [40.0, 10.0]


def test_openvino_says_what_it_is(in_all_formats):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(str(in_all_formats[0] / "models" / "model.xml"))
    assert json.loads(model.get_rt_info(["tral_monai", "classes"]).astype(str)) == list(CLASSES)


def test_pt2_says_what_it_is(in_all_formats):
    extra = {"metadata.json": ""}
    torch.export.load(in_all_formats[0] / "models" / "model.pt2", extra_files=extra)
    assert json.loads(json.loads(extra["metadata.json"])["classes"]) == list(CLASSES)


def test_rounding_is_too_much_for_a_floor_of_nothing(in_all_formats, checkpoint):
    own = TissueExport(load_checkpoint(checkpoint))
    tiles = np.random.default_rng(5).integers(0, 256, (16, 6, 128, 128), dtype=np.uint8)
    floors = Floors(max_difference=0.0)
    with pytest.raises(
        AgreementError, match=r"onnx does not compute .*differ by up to .*\(at most 0\); leave onnx out"
    ):
        check_formats(own, own, in_all_formats[0] / "models", ["onnx"], tiles, floors=floors, report=lambda line: None)


def test_formats_that_there_are_not():
    with pytest.raises(ConfigError, match=r"formats must be of onnx, .*, but tflite is asked for"):
        chosen_formats(["onnx", "tflite"], TissueExport(small_tri_cnn()))


def test_files_are_written_onnx_first_because_openvino_is_made_from_it():
    assert chosen_formats(["openvino", "onnx"], TissueExport(small_tri_cnn())) == ("onnx", "openvino")


@pytest.mark.parametrize("name", ["onnx", "openvino", "torchscript"])
def test_stain_normalisation_has_no_other_form(name):
    with pytest.raises(ConfigError, match=f"cannot be exported to {name}: the network holds a stain normalisation"):
        chosen_formats([name], TissueExport(small_tri_cnn(stain_normalization=True)))


@pytest.mark.parametrize("floors", [{"min_agreement": 1.5}, {"max_difference": -0.1}])
def test_floors_are_shares(floors):
    with pytest.raises(ConfigError, match=f"{next(iter(floors))} must be between 0 and 1"):
        Floors(**floors)
