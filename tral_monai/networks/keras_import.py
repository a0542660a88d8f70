# SPDX-License-Identifier: Apache-2.0
"""The original TRI-CNN's Keras weights (HDF5) as a :class:`~tral_monai.networks.tri_cnn.TriCNN`.

What is assumed of the file, all of it checked except the first point:

- It was fed raw RGB, 0 to 255, and its branches were concatenated in the order 40x, 10x, 2.5x, as in the authors' code.
- It is a Keras HDF5 file of weights or of a whole model (weights under ``model_weights``), written by Keras 1 or 2,
  which keep one group per layer. Keras 3's ``.weights.h5`` numbers layers instead of naming them and is refused.
- The backbones are VGG16 without classifier, layers ``block1_conv1`` to ``block5_conv3``. In the authors' files all
  three lie side by side, the 40x branch with these names, 10x with ``_100x`` and 2.5x with ``_25x`` behind them
  (objective times ocular). Three sub-models with these layers inside are read too.
- What else has a two-dimensional kernel are the dense layers (``my_dense1``, ``my_dense2``, ``my_output`` there); each
  must take what the one before gives.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.tri_cnn import TriCNN

# The published network's outputs. Background is never in the active-learning data, but its output is there.
PAPER_CLASSES = ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")

_CONV = re.compile(r"^(block\d_conv\d)(.*)$")
# Layer of Keras's VGG16 -> index in torchvision's vgg16().features.
_VGG16_INDEX = {
    f"block{block}_conv{conv}": index
    for (block, conv), index in zip(
        [(b, c) for b, count in enumerate((2, 2, 3, 3, 3), start=1) for c in range(1, count + 1)],
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        strict=True,
    )
}
_OCULAR_NAMES = {"400x": 0, "100x": 1, "25x": 2}


@dataclass
class _KerasWeights:
    """Kernels and biases of one file: branch -> VGG16 layer -> part, and dense layer -> part, in the file's order."""

    branches: dict[str, dict[str, dict[str, torch.Tensor]]] = field(default_factory=dict)
    dense: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


def import_keras_weights(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    branch_order: Sequence[str] | None = None,
    dropout: float = 0.4,
) -> TriCNN:
    """Builds a TriCNN with the weights of a Keras file.

    Args:
        path: ``.h5`` or ``.hdf5`` file.
        classes: Names of the outputs in order. None: the paper's six, if the file has six outputs.
        branch_order: The branches of 40x, 10x and 2.5x by their name in the file: what stands behind ``block1_conv1``
            ("" for nothing), or the sub-model. None: told from 400x, 100x and 25x in those names.
        dropout: See :class:`~tral_monai.networks.tri_cnn.TriCNN`; not recorded in weights.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        CheckpointError: The file is not readable or its layers are not those of a TRI-CNN.
        ConfigError: The branches' order or the classes are not told by the file and have to be given.
    """
    file = Path(path)
    weights = _read(file)
    order = _ordered_branches(weights, branch_order, file)
    dense = _chained_dense(weights, 512 * len(order), file)
    widths = [layer["bias"].shape[0] for layer in dense]
    if classes is None:
        if widths[-1] != len(PAPER_CLASSES):
            raise ConfigError(f"{file.name} has {widths[-1]} outputs, the paper's network six: give classes by name")
        classes = PAPER_CLASSES
    if len(classes) != widths[-1]:
        raise ConfigError(f"{file.name} has {widths[-1]} outputs, but {len(classes)} classes were given: {classes}")

    network = TriCNN(classes, hidden=widths[:-1], dropout=dropout, normalization="raw255", seed=0)
    state: dict[str, torch.Tensor] = {"mean": network.mean, "std": network.std}
    for scale, name in enumerate(order):
        for layer, parts in weights.branches[name].items():
            target = f"branches.{scale}.features.{_VGG16_INDEX[layer]}"
            state[f"{target}.weight"] = parts["kernel"].permute(3, 2, 0, 1).contiguous()  # HWIO -> OIHW
            state[f"{target}.bias"] = parts["bias"]
    linear = [i for i, module in enumerate(network.head) if isinstance(module, torch.nn.Linear)]
    for index, parts in zip(linear, dense, strict=True):
        state[f"head.{index}.weight"] = parts["kernel"].T.contiguous()  # (in, out) -> (out, in)
        state[f"head.{index}.bias"] = parts["bias"]
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the layers of {file.name} are not those of a TRI-CNN: {error}") from error
    return network.eval()


def _read(path: Path) -> _KerasWeights:
    import h5py

    if not path.is_file():
        raise CheckpointError(f"there is no file {os.fspath(path)!r}; check the path")
    weights = _KerasWeights()
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for group, parts, dataset in _datasets(root, h5py.Dataset):
                _sort_in(weights, group, parts, torch.from_numpy(dataset[()].astype("float32")))
    except OSError as error:
        raise CheckpointError(f"{path.name} is not a readable HDF5 file: {error}") from error
    if not weights.branches:
        raise CheckpointError(
            f"{path.name} holds no layers named block1_conv1 and so on; expected VGG16 branches in a file that Keras 1 "
            "or 2 wrote (in Keras 3: load the model and call save_weights of tf_keras)"
        )
    return weights


def _datasets(root: Any, dataset_type: type) -> Iterator[tuple[str, list[str], Any]]:
    """Every array with its layer's group and its path below; layers in the model's order where the file tells it."""
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in root.attrs.get("layer_names", sorted(root))]
    for group in names:
        found: list[tuple[str, Any]] = []
        root[group].visititems(lambda name, item, f=found: f.append((name, item)))
        for name, item in found:
            if isinstance(item, dataset_type):
                yield group, name.split("/"), item


def _sort_in(weights: _KerasWeights, group: str, parts: list[str], values: torch.Tensor) -> None:
    part = parts[-1].partition(":")[0]
    if part not in ("kernel", "bias"):
        return
    match = _CONV.match(group)
    if match:
        weights.branches.setdefault(match[2], {}).setdefault(match[1], {})[part] = values
        return
    inner = next((m[1] for m in map(_CONV.match, parts[:-1]) if m), None)
    if inner:
        weights.branches.setdefault(group, {}).setdefault(inner, {})[part] = values
    else:
        weights.dense.setdefault("/".join([group, *parts[:-1]]), {})[part] = values


def _ordered_branches(weights: _KerasWeights, branch_order: Sequence[str] | None, path: Path) -> list[str]:
    found = list(weights.branches)
    if branch_order is not None:
        if sorted(branch_order) != sorted(found):
            raise ConfigError(f"branch_order must hold {found} in some order, but is {list(branch_order)}")
        order = list(branch_order)
    else:
        if len(found) != 3:
            raise CheckpointError(f"{path.name} holds {len(found)} VGG16 branches ({found}); expected three")
        places = {name: _place(name) for name in found}
        if sorted(p for p in places.values() if p is not None) != [0, 1, 2]:
            raise ConfigError(
                f"the branches of {path.name} are named {found}, which does not tell their magnifications; give "
                "branch_order: these names in the order 40x, 10x, 2.5x"
            )
        order = sorted(found, key=lambda name: places[name] or 0)
    for name in order:
        missing = [k for k in _VGG16_INDEX if set(weights.branches[name].get(k, ())) != {"kernel", "bias"}]
        if missing:
            raise CheckpointError(f"branch {name!r} of {path.name} lacks kernel or bias of {', '.join(missing)}")
    return order


def _place(name: str) -> int | None:
    if name == "":
        return 0
    match = re.search(r"(400x|100x|25x)", name)
    return _OCULAR_NAMES[match[1]] if match else None


def _chained_dense(weights: _KerasWeights, num_features: int, path: Path) -> list[dict[str, torch.Tensor]]:
    layers = list(weights.dense.items())
    width = num_features
    for name, parts in layers:
        kernel, bias = parts.get("kernel"), parts.get("bias")
        if kernel is None or bias is None or kernel.dim() != 2 or kernel.shape != (width, bias.shape[0]):
            shape = None if kernel is None else tuple(kernel.shape)
            raise CheckpointError(
                f"layer {name} of {path.name} must be dense on {width} inputs, with a bias, but its kernel is {shape}; "
                f"dense layers in the file's order: {[n for n, _ in layers]}"
            )
        width = int(bias.shape[0])
    if not layers:
        raise CheckpointError(f"{path.name} holds no dense layers; expected TRI-CNN's classifier")
    return [parts for _, parts in layers]
