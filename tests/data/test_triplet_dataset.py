# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest
import torch

from tral_monai.data.triplet_dataset import UNLABELLED, TripletDataset
from tral_monai.errors import UnknownClassError
from tral_monai.slides import open_slide

CLASSES = ("Blood", "Stroma")


@pytest.fixture
def table(tiny_cohort) -> pd.DataFrame:
    slide = sorted(tiny_cohort.parent.rglob("*.tif"))[0]
    return pd.DataFrame(
        {
            "id": [7, 8, 9],
            "slide_path": str(slide),
            "slide_mpp": open_slide(slide).mpp,
            "x_level0": [512, 640, 768],
            "y_level0": [512, 512, 640],
            "class": ["Stroma", "Blood", ""],
        }
    )


class Features:
    """A feature source that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, table):
        self.asked += 1
        return table[["x_level0", "y_level0"]].to_numpy(np.float32)


def test_samples(table):
    dataset = TripletDataset(table, CLASSES)
    sample = dataset[0]
    assert len(dataset) == 3
    assert sample["image"].shape == (9, 128, 128)
    assert sample["image"].dtype == torch.uint8
    assert [dataset[i]["label"] for i in range(3)] == [1, 0, UNLABELLED]
    assert dataset[-1]["id"] == 9


def test_a_batch_is_the_same_as_its_samples_in_any_order(table):
    dataset = TripletDataset(table, CLASSES)
    batch = dataset.__getitems__([2, 0, 2])
    assert [sample["id"] for sample in batch] == [9, 7, 9]
    for sample, index in zip(batch, [2, 0, 2], strict=True):
        assert torch.equal(sample["image"], TripletDataset(table, CLASSES)[index]["image"])


@pytest.mark.parametrize(("keep_bytes", "kept"), [(0, 0), (147_456, 1), (2 << 30, 3)])
def test_memory_for_decoded_triplets_is_bounded(table, keep_bytes, kept):
    dataset = TripletDataset(table, CLASSES, keep_bytes=keep_bytes)
    first = dataset.__getitems__([0, 1, 2])
    second = dataset.__getitems__([0, 1, 2])
    assert len(dataset._kept) == kept
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))


def test_a_loader_with_workers_gives_the_same_batches(table):
    def batches(workers):
        loader = torch.utils.data.DataLoader(TripletDataset(table, CLASSES), batch_size=2, num_workers=workers)
        return [(batch["id"].tolist(), batch["image"].sum().item()) for batch in loader]

    assert batches(2) == batches(0)


def test_features_are_fetched_once_and_at_first_use(table):
    source = Features()
    dataset = TripletDataset(table, CLASSES, features=source)
    assert source.asked == 0
    assert [sample["image"].tolist() for sample in dataset.__getitems__([2, 0])] == [[768, 640], [512, 512]]
    assert dataset[1]["image"].dtype == torch.float32
    assert source.asked == 1


def test_a_class_that_the_network_does_not_know(table):
    with pytest.raises(UnknownClassError, match=r"classes \['Blood'\], but the network knows only \['Stroma'\]"):
        TripletDataset(table, ["Stroma"])


def test_tables_without_classes(table):
    assert TripletDataset(table.drop(columns="class"), CLASSES).labels.tolist() == [UNLABELLED] * 3
