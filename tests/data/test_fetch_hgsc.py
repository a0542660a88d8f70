# SPDX-License-Identifier: Apache-2.0
"""scripts/fetch_hgsc.py on a small wheel made here: no network."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

from tral_monai.annotations.nuclei.data_sets import read_fields
from tral_monai.errors import AnnotationError, ConfigError
from tral_monai.file_hash import file_sha256

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_hgsc.py"
SIZE_PX = 200


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_hgsc", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_hgsc"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _parquet(outlines: list[shapely.Polygon], classes: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"geometry": [shapely.to_wkb(o) for o in outlines], "class_name": classes}), buffer)
    return buffer.getvalue()


def _jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(100, 255, (SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _wheel(script: ModuleType, path: Path, *, leave_out: str = "", classes: tuple[str, ...] = ()) -> Path:
    # A triangle, whose box is 10..30 x 20..50; a box across x = 100, a quarter of it on the right; one at the edge.
    outlines = [
        shapely.Polygon([(10, 20), (30, 20), (20, 50)]),
        shapely.box(85, 60, 105, 80),
        shapely.box(180, 190, 200, 200),
    ]
    names = list(classes) or ["neoplastic", "inflammatory", "connective"]
    contents = {
        script.MEMBERS[0].image: _jpeg(0),
        script.MEMBERS[0].nuclei: _parquet(outlines, names),
        script.MEMBERS[1].image: _jpeg(1),
        script.MEMBERS[1].nuclei: _parquet(outlines[:1], names[:1]),
        script.LICENCE: b"BSD 3-Clause License",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            if name != leave_out:
                archive.writestr(name, content)
    return path


def test_whole_fields_keep_their_boxes_and_their_pictures(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL)
    annotations = script.extract_fields(wheel, tmp_path / "hgsc")
    nest, stroma = read_fields("coco", annotations.parent)
    assert (nest.name, nest.slide, nest.mpp, nest.width_px) == ("hgsc_nest", "hgsc_nest", 0.5, SIZE_PX)
    assert nest.classes == ("neoplastic", "inflammatory", "connective")
    assert nest.boxes_px.tolist() == [[10, 20, 30, 50], [85, 60, 105, 80], [180, 190, 200, 200]]
    assert not nest.ignored.any()
    assert nest.problems == ()
    assert len(stroma) == 1
    with zipfile.ZipFile(wheel) as archive:
        assert nest.image is not None
        assert nest.image.read_bytes() == archive.read(script.MEMBERS[0].image)


def test_tiles_hold_each_nucleus_where_most_of_it_lies(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL)
    annotations = script.extract_fields(wheel, tmp_path / "hgsc", tile_px=100)
    fields = {field.name: field for field in read_fields("coco", annotations.parent)}
    assert len(fields) == 8
    left, right, lower = fields["hgsc_nest_11"], fields["hgsc_nest_12"], fields["hgsc_nest_22"]
    assert left.boxes_px.tolist() == [[10, 20, 30, 50], [85, 60, 100, 80]]
    assert left.ignored.tolist() == [False, False]
    assert right.boxes_px.tolist() == [[0, 60, 5, 80]]
    assert right.ignored.tolist() == [True]
    assert lower.boxes_px.tolist() == [[80, 90, 100, 100]]
    assert len(fields["hgsc_nest_21"]) == 0
    whole = np.asarray(Image.open(io.BytesIO(_jpeg(0))).convert("RGB"))
    assert right.image is not None
    assert np.array_equal(np.asarray(Image.open(right.image)), whole[:100, 100:])
    assert {field.slide for field in fields.values()} == {"hgsc_nest", "hgsc_stroma"}


def test_the_folder_says_that_a_machine_made_the_labels(script: ModuleType, tmp_path: Path):
    annotations = script.extract_fields(_wheel(script, tmp_path / script.WHEEL), tmp_path / "hgsc")
    source = (annotations.parent / "SOURCE.txt").read_text(encoding="utf-8")
    assert "made by a machine" in source
    assert "histolytics==0.3.0" in source
    assert (annotations.parent / "LICENSE.txt").read_text(encoding="utf-8") == "BSD 3-Clause License"


def test_a_wheel_that_is_there_is_checked_and_not_fetched(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL)
    assert script.fetch_wheel(tmp_path, sha256=file_sha256(wheel)) == wheel
    with pytest.raises(ConfigError, match=f"{script.WHEEL}: expected SHA-256 de2ad5cf.*; delete it and fetch it again"):
        script.fetch_wheel(tmp_path)


@pytest.mark.parametrize("member", ["image", "nuclei"])
def test_a_wheel_without_a_field(script: ModuleType, tmp_path: Path, member: str):
    name = getattr(script.MEMBERS[1], member)
    wheel = _wheel(script, tmp_path / script.WHEEL, leave_out=name)
    with pytest.raises(AnnotationError, match=f"expected the file {name}, but it is not there"):
        script.extract_fields(wheel, tmp_path / "hgsc")


def test_a_class_that_nobody_expects(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL, classes=("neoplastic", "fat", "connective"))
    with pytest.raises(AnnotationError, match=r"expected the classes .*, but found \['fat'\] too"):
        script.extract_fields(wheel, tmp_path / "hgsc")


def test_a_table_without_outlines(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL, leave_out=script.MEMBERS[0].nuclei)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"class_name": ["neoplastic"]}), buffer)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(script.MEMBERS[0].nuclei, buffer.getvalue())
    with pytest.raises(AnnotationError, match=r"expected the columns geometry and class_name, but found \['class_name"):
        script.extract_fields(wheel, tmp_path / "hgsc")


def test_tiles_out_of_range(script: ModuleType, tmp_path: Path):
    wheel = _wheel(script, tmp_path / script.WHEEL)
    with pytest.raises(ConfigError, match="tile_px must be at least 64, .* but is 10"):
        script.extract_fields(wheel, tmp_path / "hgsc", tile_px=10)
    with pytest.raises(ConfigError, match="tile_px is 300, but hgsc_nest has 200 x 200 px; choose less"):
        script.extract_fields(wheel, tmp_path / "hgsc", tile_px=300)


def test_no_index_to_download_from(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConfigError, match=r"could not download histolytics==0\.3\.0: .*; check the network, or put"):
        script.fetch_wheel(tmp_path)


def test_the_command_refuses_another_wheel(script: ModuleType, tmp_path: Path):
    (tmp_path / "download").mkdir()
    _wheel(script, tmp_path / "download" / script.WHEEL)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "expected SHA-256" in done.stderr
    assert not (tmp_path / "annotations.json").exists()
