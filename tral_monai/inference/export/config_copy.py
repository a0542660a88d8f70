# SPDX-License-Identifier: Apache-2.0
"""A bundle's configuration on its way into an exported folder: the same, and it refuses weights that have changed."""

from __future__ import annotations

from pathlib import Path

from tral_monai.errors import ConfigError

_ANCHOR = "\ninitialize:\n"
_CHECK = (
    "- {_target_: tral_monai.inference.export.sums.check_sums, folder: '@bundle_root', pattern: 'models/*.pt'}"
    "   # the weights are those that were exported\n"
)


def copy_config(source: Path, target: Path) -> None:
    """Copy a configuration and let it check ``SHA256SUMS`` before it runs.

    Args:
        source: ``inference.yaml`` or ``evaluate.yaml`` of a bundle.
        target: where to.

    Raises:
        ConfigError: it has no list ``initialize``.
    """
    text = source.read_text(encoding="utf-8")
    if text.count(_ANCHOR) != 1:
        raise ConfigError(f"{source.name} must have one list 'initialize', as this package's bundles do, but has none")
    # After the check of the command line, which also sees to it that errors end in one plain sentence.
    head, first, rest = text.partition(_ANCHOR)
    own, _, more = rest.partition("\n")
    target.write_text(f"{head}{first}{own}\n{_CHECK}{more}", encoding="utf-8")
