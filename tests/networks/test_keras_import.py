# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.keras_import import PAPER_CLASSES, import_keras_weights

VGG16 = [
    ("block1_conv1", 3, 64), ("block1_conv2", 64, 64),
    ("block2_conv1", 64, 128), ("block2_conv2", 128, 128),
    ("block3_conv1", 128, 256), ("block3_conv2", 256, 256), ("block3_conv3", 256, 256),
    ("block4_conv1", 256, 512), ("block4_conv2", 512, 512), ("block4_conv3", 512, 512),
    ("block5_conv1", 512, 512), ("block5_conv2", 512, 512), ("block5_conv3", 512, 512),
]  # fmt: skip
HIDDEN = (48, 40)  # small, so that the test's file is; the paper's widths change nothing in the code
Layer = tuple[np.ndarray, np.ndarray]


class KerasNet:
    """TRI-CNN as Keras computes it, channels last, in numpy."""

    def __init__(self, seed: int, outputs: int = 6) -> None:
        generator = np.random.default_rng(seed)

        def layer(*shape: int) -> Layer:
            fan_in = int(np.prod(shape[:-1]))
            kernel = generator.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5)
            return kernel, 0.1 * generator.standard_normal(shape[-1], dtype=np.float32)

        self.branches = [{name: layer(3, 3, i, o) for name, i, o in VGG16} for _ in range(3)]
        widths = (1536, *HIDDEN, outputs)
        self.dense = [layer(i, o) for i, o in itertools.pairwise(widths)]

    def softmax(self, tiles: list[np.ndarray]) -> np.ndarray:
        x = np.concatenate([self._branch(w, t) for w, t in zip(self.branches, tiles, strict=True)], axis=-1)
        for kernel, bias in self.dense[:-1]:
            x = np.maximum(x @ kernel + bias, 0)
        logits = x @ self.dense[-1][0] + self.dense[-1][1]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    @staticmethod
    def _branch(weights: dict[str, Layer], x: np.ndarray) -> np.ndarray:
        block = "1"
        for name, (kernel, bias) in weights.items():
            if name[5] != block:
                block = name[5]
                x = KerasNet._pool(x)
            windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
            x = np.maximum(np.tensordot(windows, kernel, axes=([4, 5, 3], [0, 1, 2])) + bias, 0)
        return KerasNet._pool(x).mean(axis=(1, 2))

    @staticmethod
    def _pool(x: np.ndarray) -> np.ndarray:
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def write_layer(parent: object, group: str, inner: str, layer: Layer) -> None:
    names = [f"{inner}/kernel:0", f"{inner}/bias:0"]
    target = parent.require_group(group)  # type: ignore[attr-defined]
    for name, values in zip(names, layer, strict=True):
        target.create_dataset(name, data=values)
    target.attrs["weight_names"] = [n.encode() for n in [*target.attrs.get("weight_names", []), *names] if n]


def write_flat(path: Path, net: KerasNet, *, whole_model: bool = False, dense: tuple[str, ...] = ()) -> None:
    """As the authors' code writes it: all layers of the graph side by side, the branches told by their suffixes."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        names = []
        # Functional models list layers by depth, so that the branches interleave.
        for name, _, _ in VGG16:
            for suffix, weights in zip(("_25x", "_100x", ""), net.branches[::-1], strict=True):
                # Renaming a built layer leaves its variables' names as they were.
                write_layer(root, name + suffix, name, weights[name])
                names.append(name + suffix)
        root.create_group("global_average_pooling2d")
        names.append("global_average_pooling2d")
        for name, layer in zip(dense or ("my_dense1", "my_dense2", "my_output"), net.dense, strict=True):
            write_layer(root, name, name, layer)
            names.append(name)
        root.attrs["layer_names"] = [n.encode() for n in names]


def write_nested(path: Path, net: KerasNet, branches: tuple[str, str, str]) -> None:
    with h5py.File(path, "w") as file:
        for group, weights in zip(branches, net.branches, strict=True):
            for name, _, _ in VGG16:
                write_layer(file, group, name, weights[name])
        # Neither alphabetical nor numerical: the order of layers is the attribute's.
        for name, layer in zip(("dense_9", "dense_10", "a_out"), net.dense, strict=True):
            write_layer(file, name, name, layer)
        file.attrs["layer_names"] = [n.encode() for n in (*branches, "dense_9", "dense_10", "a_out")]


@pytest.fixture(scope="module")
def keras_net() -> KerasNet:
    return KerasNet(seed=0)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(keras_net: KerasNet, tiles: np.ndarray) -> np.ndarray:
    return keras_net.softmax([tiles[:, scale].astype(np.float32) for scale in range(3)])


@pytest.mark.parametrize(
    ("write", "branch_order"),
    [
        (lambda path, net: write_flat(path, net, whole_model=True), None),
        (lambda path, net: write_nested(path, net, ("vgg_400x", "vgg_100x", "vgg_25x")), None),
        (lambda path, net: write_nested(path, net, ("vgg16_2", "vgg16", "vgg16_1")), ("vgg16_2", "vgg16", "vgg16_1")),
    ],
    ids=["whole model", "sub-models", "sub-models in a given order"],
)
def test_imported_network_computes_what_keras_computes(
    tmp_path: Path,
    keras_net: KerasNet,
    tiles: np.ndarray,
    expected: np.ndarray,
    write: Callable[[Path, KerasNet], None],
    branch_order: tuple[str, ...] | None,
) -> None:
    path = tmp_path / "weights.h5"
    write(path, keras_net)
    network = import_keras_weights(path, branch_order=branch_order)
    assert network.classes == PAPER_CLASSES
    assert network.hidden == HIDDEN
    image = torch.from_numpy(tiles).permute(0, 1, 4, 2, 3).reshape(2, 9, 32, 32)
    with torch.no_grad():
        probabilities = network(image).softmax(dim=1).numpy()
    assert expected.std() > 0.05  # the comparison below says something
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-5)


def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "import_keras_weights.py"
    spec = importlib.util.spec_from_file_location("import_keras_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_writes_a_checkpoint(
    tmp_path: Path, keras_net: KerasNet, tiles: np.ndarray, expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write_flat(tmp_path / "weights.h5", keras_net)
    names = ["a", "b", "c", "d", "e", "f"]
    assert script().main([str(tmp_path / "weights.h5"), str(tmp_path / "model.pt"), "--classes", *names]) == 0
    assert "classes a, b, c, d, e, f" in capsys.readouterr().out
    network = load_checkpoint(tmp_path / "model.pt")
    image = torch.from_numpy(tiles).permute(0, 1, 4, 2, 3).reshape(2, 9, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(network(image).softmax(dim=1).numpy(), expected, rtol=1e-3, atol=1e-5)
    assert script().main([str(tmp_path / "none.h5"), str(tmp_path / "model.pt")]) == 1
    assert "error: there is no file" in capsys.readouterr().err


def test_what_the_file_does_not_tell_has_to_be_given(tmp_path: Path, keras_net: KerasNet) -> None:
    path = tmp_path / "weights.h5"
    write_nested(path, keras_net, ("vgg16", "vgg16_1", "vgg16_2"))
    with pytest.raises(ConfigError, match=r"\['vgg16', 'vgg16_1', 'vgg16_2'\].* give branch_order"):
        import_keras_weights(path)
    with pytest.raises(ConfigError, match="branch_order must hold"):
        import_keras_weights(path, branch_order=("vgg16", "vgg16", "vgg16_2"))
    with pytest.raises(ConfigError, match="has 6 outputs, but 2 classes were given"):
        import_keras_weights(path, branch_order=("vgg16", "vgg16_1", "vgg16_2"), classes=("a", "b"))


def test_files_that_are_no_tri_cnn_are_refused(tmp_path: Path, keras_net: KerasNet) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(CheckpointError, match=r"weights\.h5 is not a readable HDF5 file"):
        import_keras_weights(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", data=np.zeros((3, 3, 3, 64), np.float32))
    with pytest.raises(CheckpointError, match="no layers named block1_conv1"):
        import_keras_weights(path)

    write_flat(path, keras_net)
    with h5py.File(path, "a") as file:
        del file["block3_conv2_100x/block3_conv2/bias:0"]
    with pytest.raises(CheckpointError, match=r"branch '_100x' of weights\.h5 lacks kernel or bias of block3_conv2$"):
        import_keras_weights(path)

    write_flat(path, keras_net)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [n for n in file.attrs["layer_names"] if n != "my_dense2"]
    with pytest.raises(CheckpointError, match=r"layer my_output/my_output of weights\.h5 must be dense on 48 inputs"):
        import_keras_weights(path)

    write_flat(path, keras_net)
    with h5py.File(path, "a") as file:
        kernel = file["block5_conv3_25x/block5_conv3/kernel:0"][()]
        del file["block5_conv3_25x/block5_conv3/kernel:0"]
        file["block5_conv3_25x/block5_conv3/kernel:0"] = kernel[:, :, :100]
    with pytest.raises(CheckpointError, match=r"(?s)not those of a TRI-CNN.*branches\.2\.features\.28\.weight"):
        import_keras_weights(path)


def test_other_numbers_of_outputs_and_branches(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    write_flat(path, KerasNet(seed=2, outputs=4))
    with pytest.raises(ConfigError, match="has 4 outputs, the paper's network six: give classes by name"):
        import_keras_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [n for n in file.attrs["layer_names"] if not n.endswith("_25x")]
    with pytest.raises(CheckpointError, match=r"holds 2 VGG16 branches .* expected three"):
        import_keras_weights(path)
