# SPDX-License-Identifier: Apache-2.0
"""The prototype loss of OSAL-ND: embeddings near the prototype of their own side, a margin away from the other's."""

from __future__ import annotations

import torch

from tral_monai.errors import ConfigError

PAPER_MARGIN = 10.0


def prototype_distances(embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Euclidean (not squared) distance of every embedding to every prototype.

    Args:
        embeddings: (n, d).
        prototypes: (p, d).

    Returns:
        (n, p). Where an embedding lies on a prototype, the gradient is zero, not NaN.
    """
    return torch.linalg.vector_norm(embeddings[:, None, :] - prototypes[None, :, :], dim=-1)


def prototype_loss(
    embeddings: torch.Tensor, sides: torch.Tensor, prototypes: torch.Tensor, *, margin: float = PAPER_MARGIN
) -> torch.Tensor:
    """Loss of each nucleus, OSAL-ND (Tang et al., MICCAI 2024), Eqs. 1 and 2.

    A nucleus of side c pays D(f, p_c) plus max(0, margin - D(f, p_other)).

    Args:
        embeddings: (n, d) float, one row per nucleus (RoI).
        sides: (n,) int64, the row of ``prototypes`` that each nucleus belongs to: 0 known, 1 unknown.
        prototypes: (2, d) float, known and unknown.
        margin: The paper's delta.

    Returns:
        (n,) float.

    Raises:
        ConfigError: The margin is not above 0.
    """
    return prototype_terms(embeddings, sides, prototypes, margin=margin).sum(dim=1)


def prototype_terms(
    embeddings: torch.Tensor, sides: torch.Tensor, prototypes: torch.Tensor, *, margin: float = PAPER_MARGIN
) -> torch.Tensor:
    """The two addends of Eq. 1 apart: ``l(f, p_kno)`` and ``l(f, p_unk)``.

    Args:
        embeddings: See :func:`prototype_loss`, like the others.
        sides: (n,).
        prototypes: (2, d).
        margin: The paper's delta.

    Returns:
        (n, 2) float.

    Raises:
        ConfigError: The margin is not above 0.
    """
    if margin <= 0:
        raise ConfigError(f"the prototype loss needs a margin above 0 (the paper's is 10), but got {margin!r}")
    distances = prototype_distances(embeddings, prototypes)
    own = sides[:, None] == torch.arange(len(prototypes), device=sides.device)[None, :]
    return torch.where(own, distances, (margin - distances).clamp(min=0))
