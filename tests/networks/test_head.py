# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.networks.head import BranchDropout, FeatureNorm, build_head
from tral_monai.networks.tri_cnn import TriCNN


def test_branch_dropout_drops_whole_magnifications_keeps_one_and_keeps_the_sum():
    torch.manual_seed(0)
    out = BranchDropout((2, 2, 2), 0.5).train()(torch.ones(4000, 6)).view(4000, 3, 2)
    assert torch.equal(out[..., 0], out[..., 1])
    kept = (out[..., 0] > 0).sum(dim=1)
    assert kept.min() == 1
    # Kept branches are scaled so that each sample's sum stays: 3 of 3 by 1, 2 of 3 by 1.5, 1 of 3 by 3.
    assert torch.allclose(out.sum(dim=(1, 2)), torch.full((4000,), 6.0))
    # All three are kept in 1 of 8 draws, and where none was drawn (1 of 8) all are kept too.
    assert abs((kept == 3).float().mean().item() - 0.25) < 0.03


def test_branch_dropout_takes_magnifications_of_different_widths():
    torch.manual_seed(0)
    dropped = BranchDropout((1, 3), 0.5).train()(torch.ones(400, 4))
    # One of two magnifications is kept and doubled, or both are kept as they are.
    assert {tuple(row.tolist()) for row in dropped} == {(1, 1, 1, 1), (2, 0, 0, 0), (0, 2, 2, 2)}


def test_branch_dropout_does_nothing_in_evaluation():
    features = torch.rand(5, 6)
    assert torch.equal(BranchDropout((2, 2, 2), 0.9).eval()(features), features)


def test_a_batch_of_one_is_standardised_by_the_running_values():
    norm = FeatureNorm(2, affine=False).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    assert torch.allclose(norm(torch.tensor([[3.0, 5.0]])), torch.tensor([[1.0, 1.0]]), atol=1e-4)
    assert norm.running_mean.tolist() == [1.0, 2.0]


def test_larger_batches_are_standardised_as_pytorch_does_and_can_be_scripted():
    ours, theirs = FeatureNorm(3, affine=False), torch.nn.BatchNorm1d(3, affine=False)
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5):
        features = torch.randn(n, 3, generator=generator) * 7 + 2
        assert torch.equal(ours(features), theirs(features))
    for name, buffer in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], buffer)
    assert torch.equal(torch.jit.script(ours.eval())(features), theirs.eval()(features))


def test_layers_of_the_papers_classifier():
    head = build_head((512, 512, 512), (4096, 4096), 6, dropout=0.4)
    assert [type(m).__name__ for m in head] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_layers_of_a_small_classifier():
    head = build_head((2, 2, 2), (), 2, dropout=0.1, feature_norm="batch", branch_dropout=0.5)
    assert [type(m).__name__ for m in head] == ["FeatureNorm", "BranchDropout", "Dropout", "Linear"]


def test_a_network_with_branch_dropout_can_be_scripted_and_travels_in_the_contract():
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", hidden=(), branch_dropout=0.3, seed=0).eval()
    features = torch.rand(2, network.num_features)
    assert torch.allclose(torch.jit.script(network)(features), network(features))
    assert TriCNN.from_contract(network.contract.state_dict()).branch_dropout == 0.3


def test_branch_dropout_out_of_range():
    with pytest.raises(ConfigError, match=r"branch_dropout must be at least 0 and below 1, but is 1\.0"):
        TriCNN(["a", "b"], branch_dropout=1.0)
