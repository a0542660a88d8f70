# SPDX-License-Identifier: Apache-2.0
"""``metadata.json`` of an exported bundle: the bundle's own, made true of this model and these versions."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from tral_monai.inference.export.deployable import Deployable


def exported_metadata(
    described: Mapping[str, Any],
    deployable: Deployable,
    *,
    weights_sha256: str,
    version: str | None = None,
    data_source: str | None = None,
) -> dict[str, Any]:
    """Rewrite a bundle's metadata for one model.

    Args:
        described: ``metadata.json`` of the bundle.
        deployable: the network.
        weights_sha256: of its weights.
        version: of the model. None: the bundle's, followed by the first digits of the hash.
        data_source: what the model was trained on. None says that this was not stated.

    Returns:
        Plain data for JSON.
    """
    changed = deployable.data_format(described)
    own = version if version is not None else f"{described['version']}+{weights_sha256[:8]}"
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    changed["version"] = own
    changed["changelog"] = {
        **described["changelog"],
        own: f"{day}: one model exported, weights {weights_sha256[:12]}, output {changed['pred_classes']}",
    }
    changed["monai_version"] = metadata.version("monai")
    changed["pytorch_version"] = metadata.version("torch")
    changed["numpy_version"] = metadata.version("numpy")
    changed["required_packages_version"] = {
        name: metadata.version(name) for name in described["required_packages_version"]
    }
    changed["data_source"] = data_source if data_source is not None else "not stated when the model was exported"
    return changed
