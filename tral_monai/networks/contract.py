# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of TriCNN promises besides its weights, and the check that a network keeps that promise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tral_monai import __version__
from tral_monai.errors import CheckpointError

if TYPE_CHECKING:
    from tral_monai.networks.tri_cnn import TriCNN

FORMAT = "tral_monai.TriCNN"
FORMAT_VERSION = 1

# What has to be equal for weights to mean the same thing, with the reason that a mismatch is told with.
_MUST_AGREE = {
    "classes": "the outputs would be read as other classes",
    "backbone": "the weights are of another architecture",
    "hidden": "the classifier has other layers",
    "normalization": "the network would see other pixel values than it was trained on",
    "magnifications": "the branches would see other fields of view",
    "tile_px": "the branches would see other fields of view",
    "stain_normalization": "the network would see another stain than it was trained on",
    "context": "the branches of lower magnifications have other layers",
    "share_weights": "the number of backbones differs",
    "branch_dropout": "the classifier has other layers",
    "feature_norm": "the classifier would see other feature values",
}


# What a setting was before checkpoints said so.
_DEFAULTS = {"context": "tile"}


class Contract:
    """The part of a checkpoint that says what the weights are for; saved and loaded beside them by MONAI's handlers.

    Give it to ``CheckpointSaver(save_dict={"model": net, "contract": net.contract})`` and
    ``CheckpointLoader(load_dict={"model": net, "contract": net.contract})``.

    Args:
        network: The network that the contract is about.
    """

    def __init__(self, network: TriCNN) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        """The contract as plain Python values, which ``torch.load(weights_only=True)`` can read."""
        net = self.network
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "classes": list(net.classes),
            "backbone": net.backbone,
            "hidden": list(net.hidden),
            "dropout": float(net.dropout),
            "normalization": {"mean": list(net.normalization.mean), "std": list(net.normalization.std)},
            "magnifications": list(net.magnifications),
            "tile_px": net.tile_px,
            "context": net.context,
            "share_weights": net.share_weights,
            "feature_norm": net.feature_norm,
            "branch_dropout": net.branch_dropout,
            "frozen": net.frozen,
            "stain_normalization": net.stain_normalization,
            "class_colors": {name: list(color) for name, color in net.class_colors.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Checks that a checkpoint was made for a network like this one; changes nothing.

        Dropout, ``frozen`` and the package's version may differ: they do not change what trained weights mean.

        Args:
            state_dict: What :meth:`state_dict` gave when the checkpoint was written.

        Raises:
            CheckpointError: It was not; the message names every difference.
        """
        theirs = check_contract(state_dict)
        ours = self.state_dict()
        differences = [
            f"{key}: the checkpoint has {theirs[key]!r}, this network {ours[key]!r} ({why})"
            for key, why in _MUST_AGREE.items()
            if theirs[key] != ours[key]
        ]
        if differences:
            raise CheckpointError(
                "the checkpoint does not fit this network; "
                + "; ".join(differences)
                + ". Build the network as the checkpoint says (tral_monai.networks.checkpoint.load_checkpoint does) "
                "or choose another checkpoint"
            )


def check_contract(contract: object) -> dict[str, Any]:
    """Checks that a value read from a file is a contract that this version understands.

    Args:
        contract: The value under the key ``contract`` of a checkpoint.

    Returns:
        The same mapping as a dict, with the settings that did not exist when it was written.

    Raises:
        CheckpointError: It is something else, of a newer format, or incomplete.
    """
    if not isinstance(contract, Mapping) or contract.get("format") != FORMAT:
        raise CheckpointError(
            f"a checkpoint's contract must be a mapping with format {FORMAT!r}, but is {_short(contract)}; "
            "write checkpoints with {'model': net, 'contract': net.contract}"
        )
    return complete_contract(
        {**_DEFAULTS, **contract}, FORMAT_VERSION, {*_MUST_AGREE, "dropout", "frozen", "class_colors"}
    )


def complete_contract(contract: Mapping[str, Any], format_version: int, keys: Iterable[str]) -> dict[str, Any]:
    """The rest of the check, which contracts of all networks share: a version that is understood, and every key.

    Args:
        contract: A mapping of the right format.
        format_version: The version of that format which this package reads.
        keys: What it must hold.

    Returns:
        The same mapping as a dict.

    Raises:
        CheckpointError: Another version, or a key is missing.
    """
    version = contract.get("format_version")
    if version != format_version:
        raise CheckpointError(
            f"the checkpoint has format version {version!r}, this package ({__version__}) reads {format_version}; "
            f"it was written by tral_monai {contract.get('package_version', 'of unknown version')}: use that version"
        )
    missing = sorted(set(keys) - set(contract))
    if missing:
        raise CheckpointError(f"the checkpoint's contract lacks {', '.join(missing)}; write the checkpoint again")
    return dict(contract)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
