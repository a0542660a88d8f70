# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import no_collation

from tral_monai.data.nuclei.cut import cut_fields
from tral_monai.data.nuclei.dataset import NucleusDataset, item_generator, label_numbers
from tral_monai.data.nuclei.fov_table import write_fovs
from tral_monai.errors import CohortError, ConfigError, UnknownClassError

CLASSES = ("Tum", "Lym")
NUCLEI = [("Lym", 5, 5, 25, 25), ("unknown", 30, 10, 44, 24), ("Tum", 60, 40, 80, 60), ("Tum?", 70, 5, 90, 25)]


@pytest.fixture
def table(make_field, gradient):
    fields = [make_field(name, NUCLEI, size=(100, 80), image=gradient(f"{name}.png")) for name in ("a", "b")]
    return cut_fields(fields, fov_mpp=0.25, fov_px=None).assign(id=[11, 12])


def shift(image, boxes, generator):
    """Moves all by a drawn number of pixels: a transform that shows what it drew."""
    dx = int(torch.randint(1_000_000, (1,), generator=generator))
    return image, boxes + dx


def drawn(dataset, position=0):
    return int(dataset[position]["boxes"][0, 0]) - 5


def test_an_item(table):
    item = NucleusDataset(table, CLASSES)[1]
    assert item["image"].shape == (3, 80, 100)
    assert item["image"].dtype == torch.uint8
    assert item["image"][:, 20, 30].tolist() == [30, 20, 7]
    assert item["boxes"].dtype == torch.float32
    assert item["boxes"].tolist() == [[5, 5, 25, 25], [30, 10, 44, 24], [60, 40, 80, 60], [70, 5, 90, 25]]
    assert item["labels"].dtype == torch.int64
    assert item["id"] == 12


@pytest.mark.parametrize(
    ("role", "labels"), [("target", [2, -1, 1, -1]), ("prototype", [1, 2, 1, -1]), ("k_plus_one", [2, 3, 1, -1])]
)
def test_labels_of_each_role(table, role, labels):
    assert NucleusDataset(table, CLASSES, role=role)[0]["labels"].tolist() == labels
    assert label_numbers(CLASSES, role)["unknown"] == labels[1]


def test_a_parquet_file_and_a_table_are_the_same(table, tmp_path):
    write_fovs(table, tmp_path / "train.parquet")
    for one, other in zip(
        NucleusDataset(tmp_path / "train.parquet", CLASSES), NucleusDataset(table, CLASSES), strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "boxes", "labels"))
        assert one["id"] == other["id"]


def test_a_list_of_dicts(gradient):
    sample = {"image": str(gradient()), "boxes": [[10, 20, 30, 40]], "classes": ["Tum"], "mpp": 0.25}
    item = NucleusDataset([sample, {**sample, "boxes": [], "classes": []}], CLASSES, fov_mpp=0.5)[0]
    assert item["image"].shape == (3, 40, 50)
    assert item["boxes"].tolist() == [[5, 10, 15, 20]]


def test_an_image_without_nuclei(gradient):
    item = NucleusDataset([{"image": gradient(), "boxes": [], "classes": [], "mpp": 0.25}], CLASSES)[0]
    assert item["boxes"].shape == (0, 4)
    assert item["labels"].shape == (0,)


def test_arrays(table):
    item = NucleusDataset(table, CLASSES, fetch="array")[0]
    assert isinstance(item["image"], np.ndarray)
    assert item["image"].shape == (80, 100, 3)


def test_draws_depend_on_seed_epoch_and_id_only(table):
    dataset = NucleusDataset(table, CLASSES, transforms=[shift], seed=5)
    first = drawn(dataset)
    drawn(dataset, 1)
    assert drawn(dataset) == first
    assert drawn(NucleusDataset(table.iloc[::-1], CLASSES, transforms=[shift], seed=5), 1) == first
    dataset.set_epoch(1)
    assert len({first, drawn(dataset), drawn(dataset, 1)}) == 3
    assert drawn(NucleusDataset(table, CLASSES, transforms=[shift], seed=6)) != first
    dataset.set_epoch(0)
    assert drawn(dataset) == first
    expected = int(torch.randint(1_000_000, (1,), generator=item_generator(5, 0, 11)))
    assert first == expected


def test_the_epoch_reaches_workers_that_run_already(table):
    dataset = NucleusDataset(table, CLASSES, transforms=[shift])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=1, persistent_workers=True, collate_fn=no_collation
    )
    found = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        batch = next(iter(loader))
        found.append([int(item["boxes"][0, 0]) - 5 for item in batch])
        assert found[-1] == [drawn(dataset, 0), drawn(dataset, 1)]
    assert found[0] != found[1]


def test_settings_out_of_range(table):
    with pytest.raises(ConfigError, match=r"role must be one of \['target', .*\], but is 'aux'"):
        NucleusDataset(table, CLASSES, role="aux")
    with pytest.raises(ConfigError, match="fetch must be 'tensor' or 'array', but is 'pil'"):
        NucleusDataset(table, CLASSES, fetch="pil")
    with pytest.raises(ConfigError, match="transforms must be callables, but one is str"):
        NucleusDataset(table, CLASSES, transforms=["flip"])
    with pytest.raises(ConfigError, match="transforms need fetch='tensor'"):
        NucleusDataset(table, CLASSES, transforms=[shift], fetch="array")
    with pytest.raises(IndexError, match="sample 2 of 2"):
        NucleusDataset(table, CLASSES)[2]


def test_a_class_that_is_no_answer(table):
    message = r"FOV 11 of a: the classes \['Lym'\] are neither known \['Tum'\] nor 'unknown' or 'ignored'; turn true"
    with pytest.raises(UnknownClassError, match=message):
        NucleusDataset(table, ["Tum"])


def test_boxes_that_cannot_be(gradient):
    sample = {"image": gradient(), "boxes": [[10, 20, 10, 40]], "classes": ["Tum"], "mpp": 0.25}
    with pytest.raises(CohortError, match=r"FOV 0 of a: box \[10.0, 20.0, 10.0, 40.0\] has no area"):
        NucleusDataset([sample], CLASSES)
    with pytest.raises(CohortError, match="FOV 0 of a: 1 boxes but 2 classes"):
        NucleusDataset([{**sample, "classes": ["Tum", "Tum"]}], CLASSES)
