# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from tral_monai.errors import ConfigError
from tral_monai.inference.engines.settings import EngineSettings


def test_the_default_is_the_reference() -> None:
    assert EngineSettings().is_reference
    assert EngineSettings().settings() == {"engine": "torch", "precision": "fp32"}
    assert not EngineSettings(precision="bf16").is_reference
    assert not EngineSettings("openvino").is_reference


def test_the_record_is_plain_data() -> None:
    described = EngineSettings("openvino", "bf16", min_agreement=0.95, agreement_tiles=32, num_threads=3).describe()
    assert json.loads(json.dumps(described)) == {
        "engine": "openvino",
        "precision": "bf16",
        "min_agreement": 0.95,
        "agreement_tiles": 32,
        "num_threads": 3,
    }


def test_a_bundle_can_name_it() -> None:
    config = {"_target_": "tral_monai.inference.engines.settings.EngineSettings", "name": "compile"}
    parser = ConfigParser({"engine": config})
    parser.parse()
    assert parser.get_parsed_content("engine") == EngineSettings("compile")


def test_threads_are_torchs_unless_given() -> None:
    assert EngineSettings().threads() == torch.get_num_threads()
    assert EngineSettings(num_threads=5).threads() == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "onnx"}, "engine must be one of torch, compile, onnxruntime, openvino, tensorrt, but is 'onnx'"),
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16, but is 'int8'"),
        ({"min_agreement": 1.5}, "min_agreement must lie between 0 and 1, but is 1.5"),
        ({"recheck_margin": -0.1}, "recheck_margin must lie between 0 and 1, but is -0.1"),
        ({"min_agreement": float("nan")}, "min_agreement must lie between 0 and 1"),
        ({"min_agreement": "0.9"}, "min_agreement must lie between 0 and 1, but is '0.9'"),
        ({"agreement_tiles": 0}, "agreement_tiles must be a whole number of at least 1, but is 0"),
        ({"agreement_tiles": None}, "agreement_tiles must be a whole number of at least 1, but is None"),
        ({"num_threads": 0}, "num_threads must be a whole number of at least 1, but is 0"),
        ({"num_threads": True}, "num_threads must be a whole number of at least 1, but is True"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineSettings(**settings)
