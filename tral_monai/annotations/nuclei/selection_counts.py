# SPDX-License-Identifier: Apache-2.0
"""What any selection of fields can gain, from the annotations alone: random, by total count, and by an oracle.

A strategy that prefers fields with many known nuclei may merely prefer fields with many nuclei. How much that alone
brings can be counted without a detector: it is the gain of the total count, next to that of an oracle.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError, ConfigError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FieldCounts:
    """Nuclei in each of n fields, (n,) int64 each. Ignored nuclei are in neither.

    Attributes:
        known: Nuclei of known classes.
        unknown: Nuclei of all other classes.
    """

    known: Counts
    unknown: Counts

    @property
    def total(self) -> Counts:
        """Known and unknown nuclei together."""
        return self.known + self.unknown


@dataclass(frozen=True)
class Selected:
    """What a selection holds; numbers are means where it was repeated.

    Attributes:
        known: Known nuclei.
        unknown: Unknown nuclei.
    """

    known: float
    unknown: float

    @property
    def purity(self) -> float:
        """Known nuclei as a share of known and unknown ones; NaN where there are none."""
        both = self.known + self.unknown
        return self.known / both if both else math.nan


@dataclass(frozen=True)
class SelectionTable:
    """One open-set setting.

    Attributes:
        fields: Fields there are.
        chosen: Fields chosen by each rule.
        random: Chosen at random, mean over the seeds.
        total_count: The fields with most nuclei, known or unknown.
        oracle: The fields with most known nuclei.
        unknown_share: Unknown nuclei as a share of all that have a class.
        fields_with_unknown: Share of the fields with at least one unknown nucleus.
        rank_correlation: Spearman's correlation of known and total count over the fields; NaN where one is constant.
    """

    fields: int
    chosen: int
    random: Selected
    total_count: Selected
    oracle: Selected
    unknown_share: float
    fields_with_unknown: float
    rank_correlation: float

    @property
    def density_share(self) -> float:
        """Share of the oracle's gain of known nuclei over random that the total count brings; NaN without a gain."""
        gain = self.oracle.known - self.random.known
        return (self.total_count.known - self.random.known) / gain if gain > 0 else math.nan


def count_nuclei(fields: Sequence[NucleusField], known: Collection[str]) -> FieldCounts:
    """Count the nuclei of each field.

    Args:
        fields: The fields.
        known: Class names that count as known.

    Raises:
        AnnotationError: A known class occurs in no field.
    """
    present = {name for field in fields for name, out in zip(field.classes, field.ignored, strict=True) if not out}
    missing = [name for name in known if name not in present]
    if missing:
        raise AnnotationError(
            f"the known classes {missing} occur in no field, only {sorted(present)}; correct the names"
        )
    counts = np.zeros((2, len(fields)), dtype=np.int64)
    for column, field in enumerate(fields):
        is_known = np.isin(np.array(field.classes, dtype=str), list(known))
        counts[:, column] = (is_known & ~field.ignored).sum(), (~is_known & ~field.ignored).sum()
    return FieldCounts(counts[0], counts[1])


def choose_top(values: npt.ArrayLike, n: int) -> Counts:
    """Rows of the n highest values, highest first; of equal ones the earlier row."""
    return np.argsort(-np.asarray(values), kind="stable")[:n].astype(np.int64)


def selected(counts: FieldCounts, rows: npt.ArrayLike) -> Selected:
    """Nuclei in the chosen rows."""
    rows = np.asarray(rows, dtype=np.int64)
    return Selected(float(counts.known[rows].sum()), float(counts.unknown[rows].sum()))


def random_selection(counts: FieldCounts, n: int, *, seeds: int = 100) -> Selected:
    """Mean over ``seeds`` random choices of n fields (seeds 0, 1, ...)."""
    size = len(counts.known)
    draws = [selected(counts, np.random.default_rng(seed).choice(size, n, replace=False)) for seed in range(seeds)]
    return Selected(float(np.mean([d.known for d in draws])), float(np.mean([d.unknown for d in draws])))


def selection_table(counts: FieldCounts, *, fraction: float = 0.15, seeds: int = 100) -> SelectionTable:
    """Compare the three rules.

    Args:
        counts: Nuclei in each field.
        fraction: Share of the fields to choose, rounded down to whole fields, at least one; OSAL-ND asks for 15 % of
            the training fields per round.
        seeds: Random choices to average.

    Raises:
        ConfigError: A fraction outside of (0, 1], or no seed.
        AnnotationError: There is no field.
    """
    from scipy.stats import spearmanr

    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction must be more than 0 and at most 1, but is {fraction}")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, but is {seeds}")
    size = len(counts.known)
    if not size:
        raise AnnotationError("there is no field to choose from; check the data set")
    n = max(int(fraction * size + 1e-9), 1)
    varied = len(set(counts.known.tolist())) > 1 and len(set(counts.total.tolist())) > 1
    nuclei = int(counts.total.sum())
    return SelectionTable(
        fields=size,
        chosen=n,
        random=random_selection(counts, n, seeds=seeds),
        total_count=selected(counts, choose_top(counts.total, n)),
        oracle=selected(counts, choose_top(counts.known, n)),
        unknown_share=int(counts.unknown.sum()) / nuclei if nuclei else math.nan,
        fields_with_unknown=float((counts.unknown > 0).mean()),
        rank_correlation=float(spearmanr(counts.known, counts.total).statistic) if varied else math.nan,
    )
