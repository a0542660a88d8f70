# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.file_hash import file_sha256
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.nuclei.shared_training import SharedTrainings

FILES = ("train_samples", "checkpoint")


@pytest.fixture
def shared(tmp_path):
    return SharedTrainings(tmp_path / "shared")


@pytest.fixture
def inputs(tmp_path):
    """A configuration, overrides with a table and no checkpoint."""
    config, samples = tmp_path / "train.yaml", tmp_path / "train.parquet"
    config.write_text("max_epochs: 1\n")
    samples.write_bytes(b"samples")
    return [str(config)], {"train_samples": str(samples), "checkpoint": None, "seed": 1, "output_dir": "a"}


def test_where_files_lie_does_not_count(shared, inputs, tmp_path):
    config, overrides = inputs
    moved = tmp_path / "elsewhere.parquet"
    moved.write_bytes(b"samples")
    other = {**overrides, "train_samples": str(moved), "output_dir": "b"}
    assert shared.key(config, overrides, FILES) == shared.key(config, other, FILES)


@pytest.mark.parametrize("change", ["config", "samples", "checkpoint", "seed", "override"])
def test_everything_else_counts(shared, inputs, tmp_path, change):
    config, overrides = inputs
    before = shared.key(config, overrides, FILES)
    if change == "config":
        (tmp_path / "train.yaml").write_text("max_epochs: 2\n")
    elif change == "samples":
        (tmp_path / "train.parquet").write_bytes(b"others")
    elif change == "checkpoint":
        overrides = {**overrides, "checkpoint": overrides["train_samples"]}
    else:
        overrides = {**overrides, "seed" if change == "seed" else "learning_rate": 2}
    assert shared.key(config, overrides, FILES) != before


def test_what_is_kept_comes_back(shared, tmp_path):
    assert shared.fetch("k", tmp_path / "model.pt") is None
    source = tmp_path / "trained.pt"
    source.write_bytes(b"weights")
    record = ModelRecord("rounds/1/model.pt", file_sha256(source), 12.5, 3, None)
    shared.keep("k", source, record)
    assert shared.fetch("k", tmp_path / "model.pt") == record._replace(path="")
    assert (tmp_path / "model.pt").read_bytes() == b"weights"
    assert shared.fetch("other", tmp_path / "model.pt") is None


def test_a_file_that_does_not_fit_its_note_is_not_taken(shared, tmp_path):
    source = tmp_path / "trained.pt"
    source.write_bytes(b"weights")
    shared.keep("k", source, ModelRecord("", file_sha256(source), 1.0, 1, None))
    (shared.folder / "k.pt").write_bytes(b"half")
    assert shared.fetch("k", tmp_path / "model.pt") is None
    assert not (tmp_path / "model.pt").exists()
