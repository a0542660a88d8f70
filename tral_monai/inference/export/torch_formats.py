# SPDX-License-Identifier: Apache-2.0
"""``model.ts`` and ``model.pt2``: the network for torch without this package."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.export.deployable import Deployable, Tiles, example_of

TORCHSCRIPT_NAME, PT2_NAME = "model.ts", "model.pt2"


def write_torchscript(deployable: Deployable, folder: Path) -> None:
    """Write ``model.ts`` with MONAI's ``ckpt_export``: metadata and configuration lie in the file.

    Args:
        deployable: the network.
        folder: ``models`` of a bundle that has its ``model.pt`` and ``configs``.

    Raises:
        ConfigError: TorchScript does not take the network.
    """
    from monai.bundle.scripts import ckpt_export

    bundle, checkpoint = folder.parent, str(folder / "model.pt")
    with warnings.catch_warnings(), _quiet("monai.bundle.scripts"):
        warnings.simplefilter("ignore")  # torch says at every call that TorchScript is old
        try:
            ckpt_export(
                net_id="network_def",
                filepath=str(folder / TORCHSCRIPT_NAME),
                ckpt_file=checkpoint,
                key_in_ckpt="model",
                meta_file=str(bundle / "configs" / "metadata.json"),
                config_file=str(bundle / "configs" / "inference.yaml"),
                bundle_root=str(bundle),
                checkpoint=checkpoint,
                device="$torch.device('cpu')",
            )
        except RuntimeError as error:
            raise ConfigError(
                f"TorchScript cannot hold this network ({_first_line(error)}); leave out torchscript"
            ) from error


def write_pt2(deployable: Deployable, folder: Path) -> None:
    """Write ``model.pt2``, what ``torch.export`` makes; ``torch.export.load`` reads it.

    Args:
        deployable: the network.
        folder: where to.

    Raises:
        ConfigError: ``torch.export`` does not take the network.
    """
    shapes = ({0: torch.export.Dim("batch", min=1, max=1 << 16)},) if deployable.any_batch else None
    try:
        with torch.no_grad():
            program = torch.export.export(deployable.module, (example_of(deployable),), dynamic_shapes=shapes)
    except Exception as error:  # torch.export has errors of many kinds, all of which mean the same here
        raise ConfigError(f"torch.export cannot hold this network ({_first_line(error)}); leave out pt2") from error
    for part in program.graph_module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # names folders of this machine
    extra = {"metadata.json": json.dumps(deployable.metadata())}
    torch.export.save(program, folder / PT2_NAME, extra_files=extra)


class TorchScriptFile:
    """Runs ``model.ts`` on the CPU.

    Args:
        folder: where the file is.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = torch.jit.load(str(folder / TORCHSCRIPT_NAME), map_location="cpu").eval()

    def __call__(self, image: Tiles) -> tuple[npt.NDArray[Any], ...]:
        """The outputs."""
        return _run(self._module, image)


class Pt2File:
    """Runs ``model.pt2`` on the CPU.

    Args:
        folder: where the file is.
    """

    def __init__(self, folder: Path) -> None:
        self._module = torch.export.load(folder / PT2_NAME).module()

    def __call__(self, image: Tiles) -> tuple[npt.NDArray[Any], ...]:
        """The outputs."""
        return _run(self._module, image)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run(module: Any, image: Tiles) -> tuple[npt.NDArray[Any], ...]:
    with torch.no_grad():
        found = module(torch.from_numpy(image))
    outputs = (found,) if isinstance(found, torch.Tensor) else tuple(found)
    return tuple(output.numpy() for output in outputs)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
