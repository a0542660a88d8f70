# SPDX-License-Identifier: Apache-2.0
"""Can the pooled features of tiles be had from a network, as it is run?"""

from __future__ import annotations

from monai.inferers.inferer import Inferer

from tral_monai.errors import ConfigError
from tral_monai.inference.choose_tile_model import is_own_inferer
from tral_monai.inference.early_exit.early_exit_model import EarlyExitModel
from tral_monai.inference.tile_model import TileModel


def require_features(model: TileModel, inferer: Inferer | None) -> None:
    """Check that a model gives pooled features beside its logits, before any slide is looked at.

    Args:
        model: the model.
        inferer: what runs the network on a batch.

    Raises:
        ConfigError: with early exit, with an inferer of the user's, or of a network without ``features`` and ``head``.
    """
    if isinstance(model, EarlyExitModel):
        raise ConfigError(
            "features are those of all magnifications, but early exit leaves 40x out for most tiles; set either "
            "save_features or early_exit, not both"
        )
    if is_own_inferer(inferer):
        raise ConfigError(
            f"features come from the network itself, but {type(inferer).__name__} runs it on images and would get them "
            "in place of tiles; set either save_features or an inferer, not both"
        )
    if not (hasattr(model.network, "features") and hasattr(model.network, "head")):
        raise ConfigError(
            "features need a network with the methods 'features' and 'head', such as a TriCNN, but "
            f"{type(model.network).__name__} lacks them; leave save_features out"
        )
