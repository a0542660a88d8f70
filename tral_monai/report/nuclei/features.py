# SPDX-License-Identifier: Apache-2.0
"""RoI features of annotated nuclei in two dimensions: whether the prototypes stand where the nuclei are."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.errors import ConfigError, LedgerError

FEATURES_FILE = "roi_features.npz"
POINTS_IN_ALL = 1500  # drawn at most
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features in the plane.

    Attributes:
        round: the round whose model made them.
        points: (m, 2).
        known: (m,) bool, False for a nucleus ticked unknown.
        prototypes: (2, 2) the known and the unknown prototype.
        total: nuclei before the picture was thinned out.
        nearer: part of all nuclei, 0..1, that lie nearer to the prototype of their own kind than to the other, measured
            on the whole features, not in the plane.
        method: ``pca`` or ``tsne``.
        explained: part of the variance on each of two principal components; None for t-SNE.
    """

    round: int
    points: FloatArray
    known: npt.NDArray[np.bool_]
    prototypes: FloatArray
    total: int
    nearer: float
    method: Literal["pca", "tsne"]
    explained: tuple[float, float] | None

    @property
    def axis_titles(self) -> tuple[str, str]:
        """What stands at the two axes."""
        if self.explained is None:
            return "t-SNE 1", "t-SNE 2"
        first, second = self.explained
        return f"principal component 1 ({first:.0%} of variance)", f"principal component 2 ({second:.0%})"


def project(
    features: npt.ArrayLike,
    prototypes: npt.ArrayLike,
    *,
    method: Literal["pca", "tsne"] = "pca",
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, tuple[float, float] | None]:
    """Features and prototypes in two dimensions, by one projection of both.

    Args:
        features: (m, d) RoI features of nuclei, m >= 2.
        prototypes: (2, d) in the same space.
        method: ``pca``, whose distances can be read, is fitted to the nuclei alone; ``tsne`` (van der Maaten and Hinton
            2008), whose distances between groups cannot, embeds prototypes and nuclei together.
        seed: of t-SNE.

    Returns:
        Points (m, 2), prototypes (2, 2), and for PCA the part of the variance on each component.

    Raises:
        ConfigError: the shapes do not fit, a value is not finite, or the method is unknown.
    """
    x, anchors = np.asarray(features, dtype=np.float64), np.asarray(prototypes, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or anchors.shape != (2, x.shape[1]):
        raise ConfigError(
            f"expected features (m, d) of m >= 2 nuclei and prototypes (2, d), but got {x.shape} and {anchors.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(anchors).all()):
        raise ConfigError("features and prototypes must be finite, but hold NaN or infinity")
    if method == "tsne":
        from sklearn.manifold import TSNE

        both = np.concatenate([x, anchors])
        perplexity = min(30.0, (len(both) - 1) / 3)
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(both).astype(np.float64)
        return plane[:-2], plane[-2:], None
    if method != "pca":
        raise ConfigError(f"method must be 'pca' or 'tsne', but is '{method}'")
    centre = x.mean(axis=0)
    _, singular, directions = np.linalg.svd(x - centre, full_matrices=False)
    basis = np.zeros((2, x.shape[1]))
    basis[: min(2, len(directions))] = directions[:2]
    # The sign of a component is arbitrary: the largest entry is positive, so that the same features look the same.
    basis *= np.where(np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1) < 0, -1.0, 1.0)
    variance = np.concatenate([singular**2, [0.0, 0.0]])
    total = float(variance.sum()) or 1.0
    return (x - centre) @ basis.T, (anchors - centre) @ basis.T, (variance[0] / total, variance[1] / total)


def nearer_to_own(features: npt.ArrayLike, known: npt.ArrayLike, prototypes: npt.ArrayLike) -> float:
    """Part of the nuclei, 0..1, whose feature lies nearer to the prototype of its own kind; NaN without any.

    Args:
        features: (m, d).
        known: (m,) bool.
        prototypes: (2, d) known, unknown.
    """
    x, anchors = np.asarray(features, dtype=np.float64), np.asarray(prototypes, dtype=np.float64)
    distances = np.stack([np.linalg.norm(x - anchor, axis=1) for anchor in anchors], axis=1)
    own = np.where(np.asarray(known, dtype=bool), 0, 1)
    return float((distances.argmin(axis=1) == own).mean()) if len(x) else float("nan")


def read_feature_map(
    run_dir: Path, *, method: Literal["pca", "tsne"] = "pca", seed: int = 0
) -> tuple[FeatureMap | None, str]:
    """The features of the last round that left any, ``rounds/round_XXX/roi_features.npz``.

    The file holds ``features`` (m, d), ``answer`` (m,) names and ``prototypes`` (2, d) known, unknown.

    Returns:
        The map or None, and why there is none (an empty string where no round left a file).
    """
    files = sorted(run_dir.glob(f"rounds/round_*/{FEATURES_FILE}"))
    if not files:
        return None, ""
    name = f"{files[-1].parent.name}/{FEATURES_FILE}"
    try:
        with np.load(files[-1], allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        return _feature_map(arrays, int(files[-1].parent.name.rpartition("_")[2]), method, seed), ""
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return None, f"{name} cannot be read ({type(error).__name__})"
    except (ConfigError, LedgerError) as error:
        return None, f"{name}: {error}"


def _feature_map(
    arrays: Mapping[str, npt.NDArray[np.generic]], round_: int, method: Literal["pca", "tsne"], seed: int
) -> FeatureMap:
    answers = np.asarray(arrays["answer"]).astype(str)
    features = np.asarray(arrays["features"], dtype=np.float64)
    prototypes = np.asarray(arrays["prototypes"], dtype=np.float64)
    if len(answers) != len(features):
        raise LedgerError(f"{len(features)} features, but {len(answers)} answers")
    told = answers != IGNORED
    features, known = features[told], answers[told] != UNKNOWN
    total, rows = len(features), np.arange(len(features))
    if total > POINTS_IN_ALL:
        rows = np.sort(np.random.default_rng(seed).choice(total, POINTS_IN_ALL, replace=False))
    points, anchors, explained = project(features[rows], prototypes, method=method, seed=seed)
    nearer = nearer_to_own(features, known, prototypes)
    return FeatureMap(round_, points, known[rows], anchors, total, nearer, method, explained)
