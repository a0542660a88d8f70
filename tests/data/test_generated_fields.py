# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from tral_monai.data.generated.fields import generate_fields
from tral_monai.errors import ConfigError

CLASSES = ["tumor", "lymphocyte", "stromal", "plasma", "mitotic", "macrophage", "other"]
KNOWN = CLASSES[:3]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_fields(tmp_path_factory.mktemp("fields"), n_fields=40, field_px=256, patients=5)


@pytest.fixture(scope="module")
def coco(annotations: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads(annotations.read_text(encoding="utf-8"))


def _counts(coco: dict[str, list[dict[str, object]]]) -> np.ndarray:
    counts = np.zeros((len(coco["images"]), len(CLASSES)), int)
    for row in coco["annotations"]:
        counts[row["image_id"] - 1, row["category_id"] - 1] += 1
    return counts


def test_json_has_the_shape_of_coco(coco: dict[str, list[dict[str, object]]]):
    assert coco["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    assert coco["images"][0] == {
        "id": 1,
        "file_name": "images/A-01_f01.png",
        "name": "A-01_f01",
        "width": 256,
        "height": 256,
        "mpp": 0.25,
        "slide": "A-01-S1",
        "patient": "A-01",
        "hospital": "A",
    }
    assert {tuple(row) for row in coco["annotations"]} == {("id", "image_id", "category_id", "bbox", "area", "iscrowd")}
    assert [row["id"] for row in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))


def test_boxes_lie_in_their_field_and_hold_their_nucleus(coco: dict[str, list[dict[str, object]]]):
    boxes = np.array([row["bbox"] for row in coco["annotations"]])
    assert boxes[:, :2].min() == 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() == 256  # some are cut by the edge
    assert boxes[:, 2:].min() >= 4
    area = np.array([row["area"] for row in coco["annotations"]])
    assert (area > 0.1 * boxes[:, 2:].prod(axis=1)).all()
    assert (area <= boxes[:, 2:].prod(axis=1)).all()


def test_every_image_is_there_and_every_nucleus_is_darker_than_its_field(
    annotations: Path, coco: dict[str, list[dict[str, object]]]
):
    for image in coco["images"]:
        pixels = np.asarray(Image.open(annotations.parent / image["file_name"]))
        assert pixels.shape == (256, 256, 3)
        assert pixels.dtype == np.uint8
        boxes = [row["bbox"] for row in coco["annotations"] if row["image_id"] == image["id"]]
        nuclei = np.zeros((256, 256), bool)
        for x, y, w, h in boxes:
            nuclei[y : y + h, x : x + w] = True
        red = pixels[..., 0].astype(float)  # hematoxylin takes red, eosin hardly does
        assert red[nuclei].mean() < red[~nuclei].mean() - 15


def test_patients_belong_to_one_hospital_and_have_many_kinds_of_field(coco: dict[str, list[dict[str, object]]]):
    assert Counter((row["patient"], row["hospital"]) for row in coco["images"]) == {
        ("A-01", "A"): 8,
        ("B-01", "B"): 8,
        ("A-02", "A"): 8,
        ("B-02", "B"): 8,
        ("A-03", "A"): 8,
    }
    counts = _counts(coco)
    for patient in ("A-01", "B-01", "A-02", "B-02", "A-03"):
        rows = [row["id"] - 1 for row in coco["images"] if row["patient"] == patient]
        assert (counts[rows].sum(axis=0)[:4] > 0).all()


def test_all_classes_occur_and_about_a_third_is_unknown(coco: dict[str, list[dict[str, object]]]):
    counts = _counts(coco)
    assert (counts.sum(axis=0) >= 10).all()
    share = counts[:, 3:].sum() / counts.sum()
    assert 0.25 < share < 0.45


def test_busy_fields_are_not_always_good_fields(coco: dict[str, list[dict[str, object]]]):
    counts = _counts(coco)
    total, known = counts.sum(axis=1), counts[:, :3].sum(axis=1)
    unknown_share = 1 - known / total
    assert np.quantile(total, 0.95) > 2.5 * np.quantile(total, 0.05)
    assert np.quantile(unknown_share, 0.1) < 0.12
    assert np.quantile(unknown_share, 0.9) > 0.6
    assert spearmanr(total, known).statistic < 0.6  # on CoNSeP it is 0.92 to 0.99, and counting is as good as a model
    busiest = np.argsort(-total)[:10]
    assert (unknown_share[busiest] > 0.5).sum() >= 2
    assert (unknown_share[busiest] < 0.2).sum() >= 2


def test_hospitals_differ_in_stain(annotations: Path, coco: dict[str, list[dict[str, object]]]):
    means = {}
    for name in ("A", "B"):
        files = [annotations.parent / row["file_name"] for row in coco["images"] if row["hospital"] == name]
        means[name] = np.mean([np.asarray(Image.open(file)).reshape(-1, 3).mean(axis=0) for file in files], axis=0)
    assert means["B"][2] - means["B"][0] > means["A"][2] - means["A"][0] + 15  # B is bluer for its red


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_and_another_seed_another_field(tmp_path: Path):
    settings = {"n_fields": 3, "field_px": 128, "patients": 2}
    first, again, other = (
        _contents(generate_fields(tmp_path / name, seed=seed, **settings).parent)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert first == again
    assert len(first) == 5  # annotations, record, three images
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_finished_fields_are_left_alone_and_unfinished_ones_are_not(tmp_path: Path):
    settings = {"n_fields": 2, "field_px": 128, "patients": 1, "hospitals": 1}
    annotations = generate_fields(tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    steps: list[tuple[int, int]] = []
    generate_fields(tmp_path / "copy", progress=lambda done, total: steps.append((done, total)), **settings)
    assert steps == []
    (tmp_path / "copy" / "images" / "A-01_f02.png").unlink()
    generate_fields(tmp_path / "copy", progress=lambda done, total: steps.append((done, total)), **settings)
    assert steps == [(1, 2), (2, 2)]
    (tmp_path / "copy" / "generated.json").write_text("{", encoding="utf-8")
    generate_fields(tmp_path / "copy", progress=lambda done, total: steps.append((done, total)), **settings)
    assert len(steps) == 4
    assert _contents(tmp_path / "copy") == _contents(annotations.parent)


def test_coarser_pixels_show_more_nuclei(tmp_path: Path):
    counts = {}
    for mpp in (0.25, 0.5):
        file = generate_fields(tmp_path / str(mpp), n_fields=6, field_px=192, patients=2, mpp=mpp)
        counts[mpp] = len(json.loads(file.read_text(encoding="utf-8"))["annotations"])
    assert 2.5 < counts[0.5] / counts[0.25] < 4.5  # four times the area, fewer at its edge


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hospitals": 3}, "hospitals must be 1 to 2, but is 3"),
        ({"hospitals": 2, "patients": 1}, r"patients must be at least the number of hospitals \(2\), but is 1"),
        ({"n_fields": 9}, r"n_fields must be at least the number of patients \(10\), but is 9"),
        ({"field_px": 64}, "field_px must be at least 128 .* but is 64"),
        ({"mpp": 2.0}, "mpp must be 0.1 to 1.0 micrometres per pixel, but is 2.0"),
        ({"seed": -1}, "seed must be 0 or more, but is -1"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        generate_fields(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())
