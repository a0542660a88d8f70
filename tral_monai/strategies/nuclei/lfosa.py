# SPDX-License-Identifier: Apache-2.0
"""LfOSA for detectors: images with many nuclei that a detector with a class for "unknown" firmly takes for known."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import StrategyError
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.geometry import single_thread
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, nuclei
from tral_monai.strategies.nuclei.information import location_information
from tral_monai.strategies.options import choice
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top

Combine = Literal["location", "none"]


@register
class Lfosa(NucleusStrategy):
    """Images with the highest A * LI: A = sum over nuclei of the probability of being known, LI = Eq. 6 of OSAL-ND.

    The auxiliary detector has K known classes and one for unknown nuclei (the last). For each known class a mixture of
    two Gaussians is fitted to the highest activation (logit) of the pool's nuclei predicted as that class; a nucleus
    counts with its probability of the component of the higher mean. Nuclei predicted unknown count 0. A class with
    fewer than two nuclei, or with one activation for all, is left out: its nuclei count 0.

    How to "combine LfOSA with Eq. 6" is not stated in OSAL-ND; the product is this project's reading.
    `Selection.scores` and `score` are A * LI (A with combine="none"); 0 for an image without a box. LI is that of the
    target detector.

    Source: Ning et al. 2022, "Active Learning for Open-set Annotation", with its mixture settings (10 iterations,
    tolerance 1e-2, regularisation 5e-4); combined as the baseline of OSAL-ND.

    Args:
        combine: "location" multiplies by LI; "none" ranks by A alone, as LfOSA itself does.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "lfosa"
    auxiliary = "k_plus_one"

    def __init__(self, *, combine: Combine = "location", min_score: float = 0.05) -> None:
        super().__init__(min_score=min_score)
        choice(self.name, "combine", combine, ("location", "none"))
        self.combine: Combine = combine
        self.columns = {"auxiliary_detections": frozenset({"logits"})}
        self.needs = frozenset({"auxiliary_detections"})
        if combine == "location":
            self.columns["detections"] = frozenset({"proposals_px"})
            self.needs |= {"detections"}

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        known, location = self._parts(outputs)
        return known * location

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        known, location = self._parts(outputs)
        scores = known * location
        counts = self.counted(outputs.found("auxiliary_detections"), "auxiliary_detections", once=True).counts
        rows = top(scores, n, generator)
        times = [f" x location uncertainty {location[row]:.3f}" if self.combine == "location" else "" for row in rows]
        return answer(
            outputs,
            rows,
            scores[rows],
            [
                f"{known[row]:.2f} known nuclei expected among {nuclei(counts[row])}{words}, rank {k} of {len(scores)}"
                for k, (row, words) in enumerate(zip(rows, times, strict=True), start=1)
            ],
        )

    def _parts(self, outputs: PoolOutputs) -> tuple[FloatArray, FloatArray]:
        found = self.counted(outputs.found("auxiliary_detections"), "auxiliary_detections", once=True)
        known = found.sum_per_image(known_probability(found))
        if self.combine == "none":
            return known, np.ones(len(found))
        return known, location_information(self.counted(outputs.found()))


def known_probability(found: Detections) -> FloatArray:
    """Probability (B,) that each nucleus is of a known class; the last column of the logits is "unknown".

    Raises:
        StrategyError: A label has no column in the logits.
    """
    logits = np.asarray(found.logits)
    unknown = logits.shape[1] - 1
    labels = found.labels
    if len(labels) and (labels.min() < 0 or labels.max() > unknown):
        raise StrategyError(
            f"lfosa: labels of the auxiliary detections run from {labels.min()} to {labels.max()}, but its logits have "
            f"{unknown + 1} columns; labels are 0 to K - 1 for known classes and K for unknown."
        )
    activation = logits.max(axis=1, initial=-np.inf).astype(np.float64)
    probability = np.zeros(len(labels))
    for label in range(unknown):
        rows = np.flatnonzero(labels == label)
        probability[rows] = higher_component(activation[rows])
    return probability


def higher_component(values: FloatArray) -> FloatArray:
    """Probability (m,) that each value comes from the component of the higher mean of two Gaussians fitted to them.

    All 0 where two Gaussians cannot be told: fewer than two values, or all the same.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(values) < 2 or np.ptp(values) == 0:
        return np.zeros(len(values))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are the source's setting
        mixture.fit(np.sort(values)[:, None])  # sorted: the seeded start must not depend on the order of images
        of_component = mixture.predict_proba(values[:, None])
    return np.asarray(of_component[:, int(np.argmax(mixture.means_[:, 0]))])
