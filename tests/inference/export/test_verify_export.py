# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tral_monai.errors import AgreementError, CheckpointError
from tral_monai.inference.export.sums import write_sums
from tral_monai.inference.export.verify_export import verify_export


def test_a_copy_computes_the_same(in_all_formats, tmp_path):
    shutil.copytree(in_all_formats[0], tmp_path / "copy")
    lines: list[str] = []
    assert verify_export(tmp_path / "copy", report=lines.append) == [
        "checkpoint",
        *json.loads((tmp_path / "copy" / "export.json").read_text())["formats"],
    ]
    assert lines[0] == "15 files are as they were exported"
    assert all("100.00 % of 8 classes are the source's" in line for line in lines[1:])


def test_a_flipped_bit(plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    weights = bytearray((copy / "models" / "model.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "models" / "model.pt").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"models/model.pt changed"):
        verify_export(copy)


def test_another_result_although_all_hashes_are_right(plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    path = copy / "models" / "check_tiles.npz"
    with np.load(path) as kept:
        tiles, pred = kept["image"], kept["pred"]
    assert tiles.shape == (8, 6, 128, 128)
    np.savez(path, image=tiles, pred=pred[:, ::-1])
    write_sums(copy)
    with pytest.raises(AgreementError, match="checkpoint does not compute what the source checkpoint does"):
        verify_export(copy)


def test_other_weights_in_onnx(in_all_formats, tmp_path):
    onnx = pytest.importorskip("onnx")
    copy = shutil.copytree(in_all_formats[0], tmp_path / "copy")
    model = onnx.load(str(copy / "models" / "model.onnx"))
    (last,) = [one for one in model.graph.initializer if list(one.dims) == [3, 8]]
    changed = onnx.numpy_helper.to_array(last)[::-1]  # classes in another order
    last.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed), last.name))
    onnx.save(model, str(copy / "models" / "model.onnx"))
    write_sums(copy)
    with pytest.raises(AgreementError, match="onnx does not compute"):
        verify_export(copy)
