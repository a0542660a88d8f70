# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: ``{"model": weights, "contract": what they are for}``, of TriCNN and of OpenSetRCNN."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import CheckpointError
from tral_monai.networks.contract import check_contract
from tral_monai.networks.nuclei.detector_contract import FORMAT as DETECTOR_FORMAT
from tral_monai.networks.nuclei.detector_contract import check_detector_contract
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.networks.weights import read_weights

if TYPE_CHECKING:
    from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Network = TypeVar("Network", "TriCNN", "OpenSetRCNN")


def save_checkpoint(path: str | os.PathLike[str], network: TriCNN | OpenSetRCNN) -> Path:
    """Writes a checkpoint so that the file is either the old one or the whole new one, whenever the process dies.

    Args:
        path: ``.pt`` or ``.pth`` file; its folder must exist.
        network: What to save.

    Returns:
        The path.

    Raises:
        CheckpointError: Another suffix.
        OutputError: The file cannot be written, such as on a full disk.
    """
    target = Path(path)
    if target.suffix not in (".pt", ".pth"):
        raise CheckpointError(f"a checkpoint must be a .pt or .pth file, but is {target.name!r}")
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"model": network.state_dict(), "contract": network.contract.state_dict()}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch says "unexpected pos" where the disk is full
                raise error.__context__ from None
            raise
    return target


@overload
def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    map_location: str | torch.device = "cpu",
    frozen: bool | None = None,
    expect: type[Network],
) -> Network: ...


@overload
def load_checkpoint(
    path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu", frozen: bool | None = None
) -> Any: ...


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    map_location: str | torch.device = "cpu",
    frozen: bool | None = None,
    expect: type[torch.nn.Module] | None = None,
) -> Any:
    """Rebuilds a network from a checkpoint alone; the file of its start weights is not needed.

    Args:
        path: A file from :func:`save_checkpoint` or MONAI's ``CheckpointSaver`` with ``model`` and ``contract``.
        map_location: Device of the network.
        frozen: Overrides what the checkpoint of a TriCNN says.
        expect: The class that the caller needs, TriCNN or OpenSetRCNN. None takes either.

    Returns:
        The network that the contract is of, in evaluation mode.

    Raises:
        CheckpointError: The file is not such a checkpoint, is of another class than expected, or its weights do not
            fit its contract.
    """
    file = Path(path)
    loaded = _read(file)
    contract = _checked(loaded["contract"])
    network = _build(contract, frozen)
    if expect is not None and not isinstance(network, expect):
        raise CheckpointError(
            f"{file.name} must be a checkpoint of {expect.__name__}, but is of {type(network).__name__}; "
            "choose a checkpoint made by the same bundle"
        )
    try:
        network.load_state_dict(loaded["model"])
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {file.name} do not fit the contract in it: {error}") from error
    return network.to(map_location).eval()


def read_contract(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what a checkpoint is for: classes, backbone, normalisation, magnifications and so on.

    Args:
        path: The checkpoint file.

    Raises:
        CheckpointError: The file is not a checkpoint with a contract.
    """
    return _checked(_read(Path(path))["contract"])


def _is_detector(contract: object) -> bool:
    return isinstance(contract, Mapping) and contract.get("format") == DETECTOR_FORMAT


def _checked(contract: object) -> dict[str, Any]:
    return check_detector_contract(contract) if _is_detector(contract) else check_contract(contract)


def _build(contract: dict[str, Any], frozen: bool | None) -> TriCNN | OpenSetRCNN:
    if _is_detector(contract):
        from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

        if frozen is not None:
            raise CheckpointError("only a TriCNN can be loaded frozen, but the checkpoint is of an OpenSetRCNN")
        return OpenSetRCNN.from_contract(contract)
    return TriCNN.from_contract(contract if frozen is None else {**contract, "frozen": frozen})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {os.fspath(path)!r}; check the path")
    loaded = read_weights(path)
    if not {"model", "contract"} <= set(loaded):
        raise CheckpointError(
            f"{path.name} must hold 'model' and 'contract', but holds {sorted(map(str, loaded))[:5]}; "
            "a state dict alone does not say what its outputs mean: build the network by hand, load it, and save it "
            "with save_checkpoint"
        )
    return loaded
