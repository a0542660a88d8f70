# SPDX-License-Identifier: Apache-2.0
"""What 3D Slicer's MONAI Label module does with a sample, by the client that the module brings, at a real server.

The steps and their parameters are those of ``MONAILabel.py`` of the module: ``onNextSampleButton``,
``onClickSegmentation``, ``onSaveLabel``. What Slicer itself does in between (it loads a PNG as a volume of one slice,
and exports segments as a label map of it) is done with SimpleITK, which reads and writes files as Slicer does.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import shapely
from scipy import ndimage

pytest.importorskip("monailabel")

from tests.label_app.annotator import coco_truth
from tests.label_app.server_process import LabelServer
from tral_monai.annotations.rasterise import fill_polygons

sitk = pytest.importorskip("SimpleITK")  # comes with MONAI Label
MODULE = Path(sys.prefix) / "monailabel" / "plugins" / "slicer" / "MONAILabel" / "MONAILabelLib" / "client.py"
USER = "user-xyz"  # Slicer's default


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The module's own client, not the one of the Python package."""
    if not MODULE.is_file():
        pytest.skip("the installation of MONAI Label has no Slicer module beside it")
    if importlib.util.find_spec("cgi") is None:
        pytest.skip("the module's client needs Python 3.12 or older, as Slicer has it")
    spec = importlib.util.spec_from_file_location("slicer_client", MODULE)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def slicer(module: ModuleType, label_server: LabelServer, tmp_path: Path) -> Iterator[Any]:
    """The client, as the module makes it; labels of fields are removed afterwards."""
    client = module.MONAILabelClient(label_server.url, str(tmp_path), USER)
    assert not client.auth_enabled()
    yield client
    for name, one in client.datastore()["objects"].items():
        if "final" in one["labels"] and one["image"]["ext"] == ".png":
            label_server.ask("DELETE", f"/datastore/label?id={urllib.parse.quote_plus(name)}&tag=final")


def options(info: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    """``getParamsFromConfig``."""
    config = info[section][name].get("config", {})
    return {key: value[0] if isinstance(value, list) else value for key, value in config.items()}


def next_sample(slicer: Any, server: LabelServer, folder: Path, strategy: str, image: str) -> tuple[str, Path]:
    """``onNextSampleButton`` where Slicer runs on another machine; the image is named so that it is a field."""
    info = slicer.info()
    sample = slicer.next_sample(strategy, {**options(info, "strategies", strategy), "image": image})
    assert sample["id"] == image
    assert Path(sample["path"]).is_file(), "on the same machine Slicer loads the file itself"
    file = folder / sample.get("name", sample["id"])  # the suffix says what Slicer loads
    urllib.request.urlretrieve(f"{server.url}/datastore/image?image={urllib.parse.quote_plus(sample['id'])}", file)
    assert file.suffix == ".png"
    assert "original" not in slicer.datastore()["objects"][image]["labels"]
    return sample["id"], file


def save_label(slicer: Any, image: str, labels: np.ndarray, names: list[str], file: Path) -> dict[str, Any]:
    """``onSaveLabel``: a label map on the grid of the volume, values in the order of the segments."""
    volume = sitk.GetImageFromArray(labels.astype(np.int16)[None])  # a volume of one slice
    sitk.WriteImage(volume, str(file), True)
    rows = [{"name": name, "idx": index + 1} for index, name in enumerate(names)]
    result = slicer.save_label(image, str(file), params={"label_info": rows})
    json.dumps(result)  # Slicer shows it
    slicer.info()  # fetchInfo
    return dict(result)


def stored(slicer: Any, image: str) -> list[tuple[str, Any]]:
    """Class and geometry of what the server keeps."""
    file = Path(slicer.download_label(image, "final"))
    assert file.suffix == ".geojson"
    features = json.loads(file.read_text())["features"]
    return [(one["properties"]["classification"]["name"], shapely.geometry.shape(one["geometry"])) for one in features]


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])  # Slicer's default, and NRRD
def test_nuclei_drawn_in_slicer_are_counted(
    slicer: Any, label_server: LabelServer, fields: Path, tmp_path: Path, extension: str
) -> None:
    truth = coco_truth(fields)
    image, picture = next_sample(slicer, label_server, tmp_path, "nuclei_random", sorted(truth)[0])
    size = sitk.ReadImage(str(picture)).GetSize()
    assert size == (512, 512)
    names = slicer.info()["labels"]  # initSample makes a segment for each
    labels = np.zeros(size[::-1], np.uint8)
    for name, outline in truth[image]:
        if name in names:
            inside = np.zeros(labels.shape, bool)
            fill_polygons(inside, [outline], pitch=1.0, origin=(0, 0))
            labels[inside] = names.index(name) + 1
    expected = {name: ndimage.label(labels == value)[1] for value, name in enumerate(names, 1)}
    assert sum(expected.values()) >= 10
    before = slicer.info()["train_stats"]["nuclei"]["regions_answered"]
    report = save_label(slicer, image, labels, names, tmp_path / f"tmp_1{extension}")
    assert (report["image"], report["label"]) == (image, image)
    assert report["nuclei"]["regions_answered"] >= 2, "the region that was asked for, and the image"
    assert (report["nuclei"]["unknown_names"], report["nuclei"]["problems"]) == ([], [])
    assert slicer.info()["train_stats"]["nuclei"]["regions_answered"] > before
    kept = stored(slicer, image)
    assert kept[0][0] == "Region"
    assert kept[0][1].bounds == (0, 0, 512, 512)
    assert Counter(name for name, _ in kept[1:]) == {name: count for name, count in expected.items() if count}
    assert sum(area.area for _, area in kept[1:]) == np.count_nonzero(labels)
    assert not slicer.train_status(True)


def test_a_models_answer_lies_on_its_image_and_can_be_submitted(
    slicer: Any, label_server: LabelServer, fields: Path, tmp_path: Path
) -> None:
    image, picture = next_sample(slicer, label_server, tmp_path, "nuclei_random", sorted(coco_truth(fields))[1])
    info = slicer.info()
    assert info["models"]["tissue"]["type"] == "segmentation", "for `detection`, Slicer would submit boxes"
    params = options(info, "models", "tissue")
    params |= {"undefined_below": 0.0, "result_extension": ".nrrd", "result_dtype": "uint8"}
    file, answer = slicer.infer("tissue", image, params, None, None, None)
    found, volume = sitk.ReadImage(file), sitk.ReadImage(str(picture))
    for grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, grid)() == getattr(volume, grid)(), grid
    names = [name for name, _ in sorted(answer["label_names"].items(), key=lambda item: item[1])]
    assert list(answer["label_names"].values()) == list(range(1, len(names) + 1)), "Slicer counts segments from 1"
    labels = sitk.GetArrayFromImage(found)
    assert labels.any()
    report = save_label(slicer, image, labels, names, tmp_path / "tmp_2.nrrd")
    assert report["tissue"]["regions_answered"] >= 1  # the whole image, and what other tests asked for in it
    kept = stored(slicer, image)[1:]
    assert {name: area.area for name, area in kept} == {
        names[value - 1]: np.count_nonzero(labels == value) for value in np.unique(labels[labels > 0])
    }


def test_slicer_is_told_why_a_label_map_is_refused(
    slicer: Any, module: ModuleType, label_server: LabelServer, fields: Path, tmp_path: Path
) -> None:
    image = sorted(coco_truth(fields))[2]
    with pytest.raises(module.MONAILabelClientException) as refused:
        save_label(slicer, image, np.ones((500, 512), np.uint8), ["neoplastic"], tmp_path / "small.nrrd")
    assert "Status: 422" in refused.value.msg
    assert "the label map has 512 x 500 pixels, but its image has 512 x 512" in refused.value.msg
    with pytest.raises(module.MONAILabelClientException) as unknown:
        slicer.infer("nuclei", image, {"result_extension": ".nrrd"}, None, None, None)
    assert "there is no trained model 'nuclei' yet" in unknown.value.msg
    assert "final" not in slicer.datastore()["objects"][image]["labels"]
