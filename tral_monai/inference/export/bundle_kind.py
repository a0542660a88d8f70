# SPDX-License-Identifier: Apache-2.0
"""Which of the package's bundles a folder is, and the network that a checkpoint for it must hold."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.export.deployable import Deployable
from tral_monai.inference.export.tissue import TissueExport
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN

_NETWORK_OF = {
    "tral_monai.inference.tissue_mapper.TissueMapper": TriCNN,
    "tral_monai.inference.nuclei.nucleus_mapper.NucleusMapper": OpenSetRCNN,
}


def read_bundle(bundle: str | os.PathLike[str]) -> type[TriCNN] | type[OpenSetRCNN]:
    """The class of network that a bundle is about.

    Args:
        bundle: folder of a bundle of this package.

    Raises:
        ConfigError: it is something else.
    """
    folder = Path(bundle)
    needed = ("LICENSE", "configs/metadata.json", "configs/inference.yaml", "configs/evaluate.yaml")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"'{folder}' is no bundle: it lacks {', '.join(missing)}; give a folder below bundles/")
    config = yaml.safe_load((folder / "configs" / "inference.yaml").read_text(encoding="utf-8"))
    mapper = config.get("mapper", {}).get("_target_")
    if mapper not in _NETWORK_OF:
        raise ConfigError(
            f"only bundles of this package can be exported, whose mapper is one of {', '.join(_NETWORK_OF)}, but that "
            f"of '{folder.name}' is {mapper!r}"
        )
    return _NETWORK_OF[mapper]


def load_deployable(
    bundle: str | os.PathLike[str], checkpoint: str | os.PathLike[str], *, tile_px: int | None = None
) -> Deployable:
    """The network of a checkpoint, for a bundle.

    Args:
        bundle: folder of a bundle of this package.
        checkpoint: a checkpoint made by it.
        tile_px: side of the tiles of a detector; None takes that of its training. A TriCNN has its own.

    Raises:
        ConfigError: the folder is no bundle of this package, or the tile size does not fit.
        CheckpointError: the checkpoint is of another bundle's network, or cannot be used.
    """
    expect = read_bundle(bundle)
    network = load_checkpoint(checkpoint)
    if not isinstance(network, expect):
        raise CheckpointError(
            f"'{Path(bundle).name}' needs a checkpoint of {expect.__name__}, but {Path(checkpoint).name} is of "
            f"{type(network).__name__}; give the bundle that made it"
        )
    if isinstance(network, TriCNN):
        if tile_px not in (None, network.tile_px):
            raise ConfigError(f"the network has tiles of {network.tile_px} px, but tile_px is {tile_px}; leave it out")
        return TissueExport(network)
    from tral_monai.inference.export.nuclei import NucleiExport

    return NucleiExport(network, tile_px=tile_px)
