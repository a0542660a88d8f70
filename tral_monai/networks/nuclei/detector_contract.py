# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of OpenSetRCNN promises besides its weights, and the check that a network keeps that promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tral_monai import __version__
from tral_monai.errors import CheckpointError
from tral_monai.networks.contract import complete_contract

if TYPE_CHECKING:
    from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

FORMAT = "tral_monai.OpenSetRCNN"
FORMAT_VERSION = 1

_KEYS = ("classes", "role", "head", "backbone", "loss_prediction", "normalization", "frozen_batch_norm", "settings")

# What has to be equal for weights to mean the same thing, with the reason that a mismatch is told with.
_MUST_AGREE = {
    "classes": "the outputs would be read as other classes",
    "role": "the outputs mean something else",
    "head": "the outputs mean something else",
    "backbone": "the weights are of another architecture",
    "loss_prediction": "the weights are of another architecture",
    "normalization": "the network would see other pixel values than it was trained on",
}
_SETTINGS_MUST_AGREE = {
    "strides": "the feature pyramid differs",
    "fpn_channels": "the feature pyramid differs",
    "pool_level": "the feature pyramid differs",
    "upsample": "the network would see nuclei of another size",
    "fov_mpp": "the network would see nuclei of another size",
    "anchor_sizes_px": "the box offsets would count from other anchors",
    "anchor_ratios": "the box offsets would count from other anchors",
    "rpn_convs": "the proposal head has other layers",
    "roi_size": "the RoI head has other layers",
    "representation": "the RoI head has other layers",
    "class_agnostic_regression": "the RoI head has other layers",
    "evidence": "evidence would be read in another way",
    "projection": "the prototypes live in another space",
    "temperature": "probabilities would be read in another way",
}


class DetectorContract:
    """The part of a checkpoint that says what the weights are for; saved and loaded beside them by MONAI's handlers.

    Args:
        network: The detector that the contract is about.
    """

    def __init__(self, network: OpenSetRCNN) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        """The contract as plain Python values, which ``torch.load(weights_only=True)`` can read."""
        net = self.network
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "classes": list(net.classes),
            "role": net.role,
            "head": net.head,
            "backbone": net.backbone_name,
            "loss_prediction": net.loss_prediction is not None,
            "normalization": {"mean": list(net.normalization.mean), "std": list(net.normalization.std)},
            "frozen_batch_norm": net.backbone.frozen_batch_norm,
            "settings": net.settings.as_dict(),
            "class_colors": {name: list(color) for name, color in net.class_colors.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Checks that a checkpoint was made for a detector like this one; changes nothing.

        Thresholds, numbers of samples and loss weights may differ: they do not change what trained weights mean.

        Args:
            state_dict: What :meth:`state_dict` gave when the checkpoint was written.

        Raises:
            CheckpointError: It was not; the message names every difference.
        """
        theirs, ours = check_detector_contract(state_dict), self.state_dict()
        pairs = [(key, theirs[key], ours[key], why) for key, why in _MUST_AGREE.items()]
        pairs += [
            (key, theirs["settings"].get(key), ours["settings"][key], why) for key, why in _SETTINGS_MUST_AGREE.items()
        ]
        differences = [
            f"{key}: the checkpoint has {there!r}, this network {here!r} ({why})"
            for key, there, here, why in pairs
            if there != here
        ]
        if differences:
            raise CheckpointError(
                "the checkpoint does not fit this detector; "
                + "; ".join(differences)
                + ". Build the detector as the checkpoint says (tral_monai.networks.checkpoint.load_checkpoint does) "
                "or choose another checkpoint"
            )


def check_detector_contract(contract: object) -> dict[str, Any]:
    """Checks that a value read from a file is a detector's contract that this version understands.

    Args:
        contract: The value under the key ``contract`` of a checkpoint.

    Returns:
        The same mapping as a dict.

    Raises:
        CheckpointError: It is something else, of another format version, or incomplete.
    """
    if not isinstance(contract, Mapping) or contract.get("format") != FORMAT:
        found = contract.get("format") if isinstance(contract, Mapping) else type(contract).__name__
        raise CheckpointError(
            f"a detector's checkpoint must have a contract of format {FORMAT!r}, but it is {found!r}; "
            "write checkpoints with {'model': net, 'contract': net.contract}"
        )
    return complete_contract(contract, FORMAT_VERSION, {*_KEYS, "class_colors"})
