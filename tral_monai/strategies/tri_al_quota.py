# SPDX-License-Identifier: Apache-2.0
"""TRI-AL's class quotas for pools that nobody has sorted: filled by predicted class, most uncertain first."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tral_monai.strategies.allocation import allocate
from tral_monai.strategies.base import FloatArray, IntArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.class_request import interleave
from tral_monai.strategies.clue import clue_rows
from tral_monai.strategies.geometry import Rows, centred, greedy_cover, single_thread, squared_to_nearest
from tral_monai.strategies.options import choice, number
from tral_monai.strategies.registry import register
from tral_monai.strategies.smoothing import SMOOTHINGS, Smoothing, smoothed_rate
from tral_monai.strategies.uncertainty import MEASURES, Measure, top, uncertainty

Diversity = Literal["none", "kcenter", "clue"]


@register
class TriALQuota(Strategy):
    """Quotas by false-negative rate as in TRI-AL, each filled with the most uncertain samples predicted as that class.

    Asks for specific samples and needs no true classes, so it works where nobody has labelled anything yet. A class
    that the model predicts too rarely for its quota is filled up with samples whose second guess it is, the likeliest
    first; what is still missing is shared by rate among the classes with samples left. Ranks interleave the classes.
    `Selection.scores` is the uncertainty; `score` is rate of the predicted class times uncertainty.

    Source: this project. Quotas: Fuster et al. 2023, Algorithm 1, line 8. Quotas on pseudo-classes: the idea of DECOMP
    (arXiv 2512.07606). Diversity: Prabhu et al. 2021 (CLUE), Sener & Savarese 2018 (k-centre).

    Args:
        measure: "entropy", "margin" or "least_confidence".
        diversity: "none" takes the most uncertain; "clue" one sample per uncertainty-weighted cluster; "kcenter" covers
            the feature space, away from what is labelled. The last two need features.
        diversity_ratio: They choose among this many times the quota, the most uncertain.
        smoothing: Of the false-negative rates, see `smoothed_rate`.
        strength: Of "pooled" smoothing, in validation samples.
        min_probability: Least probability at which a second guess fills a quota.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "tri_al_quota"

    def __init__(
        self,
        *,
        measure: Measure = "entropy",
        diversity: Diversity = "none",
        diversity_ratio: float = 5.0,
        smoothing: Smoothing = "pooled",
        strength: float = 10.0,
        min_probability: float = 0.05,
    ) -> None:
        choice(self.name, "measure", measure, MEASURES)
        choice(self.name, "diversity", diversity, ("none", "kcenter", "clue"))
        choice(self.name, "smoothing", smoothing, SMOOTHINGS)
        self.measure: Measure = measure
        self.diversity: Diversity = diversity
        self.smoothing: Smoothing = smoothing
        self.diversity_ratio = number(self.name, "diversity_ratio", diversity_ratio, low=1.0)
        self.strength = number(self.name, "strength", strength, low=0.0)
        self.min_probability = number(self.name, "min_probability", min_probability, low=0.0, high=1.0)
        features = set() if diversity == "none" else {"features"}
        self.needs = frozenset({"probabilities", "false_negatives", "positives"} | features)
        self.wants = frozenset({"labelled_counts"} | ({"labelled_features"} if diversity == "kcenter" else set()))

    def quotas(self, outputs: PoolOutputs, n: int) -> IntArray:
        """Samples per class (C,) that a query of n asks for, before any is looked for: the advice of a round."""
        rates, in_play = self._rates(outputs)
        return allocate(rates, n, eligible=in_play).counts

    def _rates(self, outputs: PoolOutputs) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Smoothed rates (C,), 0 for classes that are only an output of the network, and which are not."""
        in_play = outputs.array("positives") > 0
        if outputs.labelled_counts is not None:
            in_play = in_play | (outputs.labelled_counts > 0)
        return smoothed_rate(outputs, self.smoothing, strength=self.strength) * in_play, in_play

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        p = outputs.array("probabilities")
        return self._rates(outputs)[0][p.argmax(axis=1)] * uncertainty(p, self.measure)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        p = outputs.array("probabilities")
        doubt = uncertainty(p, self.measure)
        predicted = p.argmax(axis=1)
        rates, in_play = self._rates(outputs)
        quotas = self.quotas(outputs, n)
        free = np.ones(len(p), dtype=bool)
        found: list[list[Rows]] = [[] for _ in quotas]
        reasons: dict[int, str] = {}
        positives = outputs.array("positives")

        def accept(rows: Rows, c: int, how: str) -> None:
            free[rows] = False
            found[c].append(rows)
            known = "is" if positives[c] else "is not known (none held out), taken as"
            head = f"FNR of {outputs.class_name(c)} {known} {rates[c]:.2f}: {quotas[c]} of {n} asked; "
            for row in rows:
                reasons[int(row)] = head + how.format(
                    p=p[row, c], u=f"{self.measure.replace('_', ' ')} {doubt[row]:.3f}"
                )

        for c, quota in enumerate(quotas):
            rows = self._pick(outputs, np.flatnonzero(predicted == c), int(quota), doubt, generator)
            accept(rows, c, "predicted, {u}")

        missing = quotas - np.array([sum(map(len, rows)) for rows in found])
        second = _second_guess(p)
        for c in np.argsort(-missing, kind="stable"):
            rows = np.flatnonzero(free & (second == c) & (p[:, c] >= self.min_probability))
            rows = rows[top(p[rows, c].astype(np.float64), int(missing[c]), generator)]
            accept(rows, int(c), "second guess with p {p:.2f}, {u}")

        left = n - int((~free).sum())
        room = np.bincount(predicted[free], minlength=len(quotas))
        for c, count in enumerate(allocate(rates, left, room, eligible=in_play).counts):
            rows = self._pick(outputs, np.flatnonzero(free & (predicted == c)), int(count), doubt, generator)
            accept(rows, c, "predicted, instead of a class that is hardly predicted, {u}")

        parts = [np.concatenate(rows) for rows in found]
        order = interleave(parts)
        asked = np.empty(len(p), dtype=np.int64)
        for c, rows in enumerate(parts):
            asked[rows] = c
        return Selection(
            ids=outputs.ids[order],
            scores=doubt[order],
            class_asked=asked[order],
            reasons=tuple(reasons[int(row)] for row in order),
        )

    def _pick(
        self, outputs: PoolOutputs, rows: Rows, k: int, doubt: FloatArray, generator: np.random.Generator
    ) -> Rows:
        """The k of `rows` that are most uncertain, or diverse among the most uncertain; all where there are no more."""
        rows = rows[top(doubt[rows], len(rows), generator)]
        if self.diversity == "none" or k >= len(rows) or k == 0:
            return rows[:k]
        # In order of id, not of a random tie-break, so that clustering sees one order only.
        rows = np.sort(rows[: max(k, int(np.ceil(round(self.diversity_ratio * k, 6))))])
        features = outputs.array("features")[rows]
        if self.diversity == "clue":
            picked = clue_rows(features, doubt[rows], k, generator)
            return rows[picked[np.argsort(-doubt[rows[picked]], kind="stable")]]
        labelled = outputs.labelled_features
        with single_thread():
            if labelled is None or len(labelled) == 0:
                (x,) = centred(features)
                return rows[greedy_cover(x, k, None)[0]]
            x, known = centred(features, labelled)
            return rows[greedy_cover(x, k, squared_to_nearest(x, known))[0]]


def _second_guess(p: npt.NDArray[Any]) -> IntArray:
    """Index of the second largest probability of each row (n, C) -> (n,); -1 where there is only one class."""
    if p.shape[1] < 2:
        return np.full(len(p), -1, dtype=np.int64)
    rest = p.copy()
    rest[np.arange(len(p)), p.argmax(axis=1)] = -1.0
    return rest.argmax(axis=1).astype(np.int64)
