# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from tral_monai.data import feature_cache
from tral_monai.data.feature_cache import FeatureCache
from tral_monai.slides import open_slide


class MeanColour(torch.nn.Module):
    """Features that can be worked out by hand: the mean of each channel. Counts the triplets it sees."""

    def __init__(self, name: str = "a" * 64) -> None:
        super().__init__()
        self.seen, self._name = 0, name

    def features(self, image):
        assert not self.training
        self.seen += len(image)
        return image.float().mean(dim=(2, 3))

    def feature_fingerprint(self):
        return self._name


@pytest.fixture
def table(tiny_cohort) -> pd.DataFrame:
    slides = sorted(tiny_cohort.parent.rglob("*.tif"))[:2]
    return pd.DataFrame(
        [
            {"slide_path": str(s), "slide_mpp": open_slide(s).mpp, "x_level0": x, "y_level0": 640}
            for x in (512, 640, 768)
            for s in slides
        ]
    )


def test_features_in_the_order_of_the_table_computed_once(table, tmp_path):
    network = MeanColour()
    first = FeatureCache(tmp_path, network, batch_size=2).get(table)
    assert first.shape == (6, 9)
    assert first.dtype == np.float32
    assert network.seen == 6
    again = FeatureCache(tmp_path, network).get(table[::-1])
    assert network.seen == 6
    assert np.array_equal(again, first[::-1])


def test_only_new_triplets_are_computed(table, tmp_path):
    network = MeanColour()
    cache = FeatureCache(tmp_path, network)
    cache.get(table.iloc[:2])
    whole = cache.get(table)
    assert network.seen == 6
    assert np.array_equal(whole, FeatureCache(tmp_path / "other", MeanColour()).get(table))


def test_another_network_has_its_own_features(table, tmp_path):
    FeatureCache(tmp_path, MeanColour()).get(table)
    other = MeanColour("b" * 64)
    FeatureCache(tmp_path, other).get(table)
    assert other.seen == 6


def test_a_slide_is_known_by_its_content_not_its_name(table, tmp_path):
    network = MeanColour()
    FeatureCache(tmp_path / "features", network).get(table)
    copy = tmp_path / "renamed.tif"
    shutil.copy(table["slide_path"][0], copy)
    moved = table[table["slide_path"] == table["slide_path"][0]].assign(slide_path=str(copy))
    FeatureCache(tmp_path / "features", network).get(moved)
    assert network.seen == 6


def test_a_network_in_training_stays_in_training(table, tmp_path):
    network = MeanColour().train()
    FeatureCache(tmp_path, network).get(table)
    assert network.training


def test_progress_counts_only_what_is_computed(table, tmp_path):
    calls = []
    cache = FeatureCache(tmp_path, MeanColour(), batch_size=2, progress=lambda done, total: calls.append((done, total)))
    cache.get(table.iloc[:2])
    calls.clear()
    cache.get(table)
    assert calls[-1] == (4, 4)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_work_is_saved_while_it_goes_on(table, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_SAVE_EVERY", 1)

    class Fails(MeanColour):
        def features(self, image):
            if self.seen >= 2:
                raise RuntimeError("out of memory")
            return super().features(image)

    with pytest.raises(RuntimeError, match="out of memory"):
        FeatureCache(tmp_path, Fails(), batch_size=1).get(table)
    network = MeanColour()
    FeatureCache(tmp_path, network).get(table)
    assert network.seen == 4
    assert not list(tmp_path.rglob(".part-*"))


def test_no_samples(table, tmp_path):
    assert FeatureCache(tmp_path, MeanColour()).get(table.iloc[:0]).shape == (0, 0)
