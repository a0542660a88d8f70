# SPDX-License-Identifier: Apache-2.0
"""The network as metadata.json describes it, and as a file that needs no Python of ours."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export, verify_net_in_out
from monai.data import load_net_with_metadata

from tests.bundles.bundle_files import BUNDLE, CONFIGS, SMALL
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN

METADATA = str(CONFIGS / "metadata.json")


def test_a_checkpoint_fits_the_metadata(small_checkpoint):
    verify_net_in_out(
        net_id="network_def",
        meta_file=METADATA,
        config_file=str(CONFIGS / "inference.yaml"),
        device="cpu",
        bundle_root=str(BUNDLE),
        checkpoint=str(small_checkpoint),
    )


def test_a_checkpoint_with_other_classes_does_not(tmp_path):
    path = save_checkpoint(tmp_path / "model.pt", TriCNN(["Stroma", "Muscle"], **SMALL, seed=0))
    with pytest.raises(ValueError, match="output channel number `2` doesn't match: `6`"):
        verify_net_in_out(
            net_id="network_def",
            meta_file=METADATA,
            config_file=str(CONFIGS / "inference.yaml"),
            device="cpu",
            bundle_root=str(BUNDLE),
            checkpoint=str(path),
        )


def test_the_papers_network_fits_the_metadata():
    verify_net_in_out(net_id="network_def", meta_file=METADATA, config_file=str(CONFIGS / "train.yaml"), device="cpu")


@pytest.mark.parametrize("made_by", ["hand", "active learning"])
def test_the_torchscript_export_computes_the_same(
    made_by: str, small_checkpoint: Path, run_folder: Path, tmp_path: Path
):
    checkpoint = small_checkpoint if made_by == "hand" else run_folder / "model.pt"
    exported = tmp_path / "model.ts"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        ckpt_export(
            net_id="network_def",
            filepath=str(exported),
            ckpt_file=str(checkpoint),
            meta_file=METADATA,
            config_file=str(CONFIGS / "inference.yaml"),
            key_in_ckpt="model",
            bundle_root=str(BUNDLE),
            checkpoint=str(checkpoint),
        )
        scripted, metadata, files = load_net_with_metadata(str(exported), more_extra_files=("inference.json",))
    image = torch.randint(0, 256, (2, 9, 128, 128), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = load_checkpoint(checkpoint)(image)
        torch.testing.assert_close(scripted.eval()(image), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, 6 if made_by == "hand" else 5)
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 9
    assert json.loads(files["inference.json"])["network_def"]["_target_"].endswith("load_tissue_network")
