# SPDX-License-Identifier: Apache-2.0
"""The numerical check that is part of exporting: every file against the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tral_monai.errors import AgreementError, ConfigError
from tral_monai.inference.agreement import Agreement
from tral_monai.inference.export.deployable import Answers, Deployable, Tiles
from tral_monai.inference.export.formats import FORMATS

CHECKPOINT = "checkpoint"
TILES_NAME = "check_tiles.npz"
KEPT_TILES = 8


@dataclass(frozen=True)
class Floors:
    """What an exported file must reach.

    Args:
        min_agreement: share of the tiles (of the nuclei) that must get the source's class, 0 to 1.
        max_difference: largest difference of a probability that is taken for rounding, 0 to 1.

    Raises:
        ConfigError: a value is out of range.
    """

    min_agreement: float = 0.99
    max_difference: float = 1e-3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be between 0 and 1, but is {value!r}")

    def require(self, name: str, agreement: Agreement) -> None:
        """Refuse what does not reach them.

        Args:
            name: of the format.
            agreement: its agreement with the source.

        Raises:
            AgreementError: it does not.
        """
        if (
            agreement.not_finite
            or agreement.class_agreement < self.min_agreement
            or agreement.largest_probability_difference > self.max_difference
        ):
            raise AgreementError(
                f"{name} does not compute what the source checkpoint does: {100 * agreement.class_agreement:.2f} % of "
                f"{agreement.tiles} classes agree (at least {100 * self.min_agreement:g} % are asked for), and "
                f"probabilities differ by up to {agreement.largest_probability_difference:.2g} (at most "
                f"{self.max_difference:g}); leave {name} out of the formats, or lower min_agreement and raise "
                "max_difference if such differences do not matter"
            )


def check_formats(
    deployable: Deployable,
    reloaded: Deployable,
    models: Path,
    formats: Sequence[str],
    tiles: Tiles,
    *,
    floors: Floors,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Compare the written checkpoint and every written format with the source network on the same tiles.

    Args:
        deployable: the source network.
        reloaded: the network as read from the written checkpoint.
        models: folder of the written files.
        formats: what was written.
        tiles: tiles to compare on.
        floors: what must be reached.
        report: is told a line per file.

    Returns:
        For the checkpoint and each format its agreement, as plain data.

    Raises:
        AgreementError: a file does not reach the floors.
    """
    expected = deployable.reference(tiles)
    found: dict[str, Any] = {}
    for name in (CHECKPOINT, *formats):
        answers = reloaded.reference(tiles) if name == CHECKPOINT else answers_of(name, deployable, models, tiles)
        agreement = deployable.compare(expected, answers)
        report(
            f"{name}: {100 * agreement.class_agreement:.2f} % of {agreement.tiles} classes agree with the source, "
            f"largest difference of a probability {agreement.largest_probability_difference:.2g}"
        )
        floors.require(name, agreement)
        found[name] = agreement.describe()
    return found


def answers_of(name: str, deployable: Deployable, models: Path, tiles: Tiles) -> Answers:
    """What an exported format says of tiles.

    Args:
        name: of the format.
        deployable: the network, for how it is called.
        models: folder of the files.
        tiles: the tiles.
    """
    return deployable.answers(FORMATS[name].open(models), tiles)


def keep_tiles(path: Path, deployable: Deployable, *, seed: int) -> None:
    """Write drawn tiles with the source's answers, so that a copy of the folder can be checked anywhere.

    Args:
        path: file to write, .npz.
        deployable: the source network.
        seed: of the tiles.
    """
    tiles = deployable.generated_tiles(KEPT_TILES, seed=seed)
    np.savez_compressed(path, image=tiles, **deployable.reference(tiles))
