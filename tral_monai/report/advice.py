# SPDX-License-Identifier: Apache-2.0
"""Annotation advice: which class to annotate next, what more labels have brought lately, and when to stop.

Only the validation set is looked at, so that the test set stays untouched by any decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tral_monai.report.run_data import RunData
from tral_monai.report.slopes import Slope, Trend, class_standard_errors, fit_slope

LAST_ROUNDS = 3  # the marginal gain is that of the last rounds: early gains say little about the next label


@dataclass(frozen=True)
class ClassAdvice:
    """What is known about one class, on the validation set of the last evaluated round.

    Attributes:
        name: the class.
        f1: F1 in 0..1.
        fnr: false-negative rate in 0..1; NaN where the class is absent from the set.
        error_share: FNR divided by the sum of all FNRs: the part of the next query that the paper's rule gives it.
        slope: change of F1 per label over the last rounds.
        trend: what the slope means.
        next_gain: F1 that a further round brings if the slope stays: at least 0, at most 1 - F1; NaN if unknown.
        macro_headroom: what the macro F1 would gain if this class became perfect, (1 - F1) / C.
        mistaken_for: the class that its missed tiles are given most often, or None.
        mistaken_share: part of the missed tiles that went there.
        tiles: its tiles in the validation set, or None where no confusion was recorded.
        labelled: labels of the class so far.
        left_in_pool: unlabelled samples of the class in the training index, or None where nobody knows.
    """

    name: str
    f1: float
    fnr: float
    error_share: float
    slope: Slope
    trend: Trend
    next_gain: float
    macro_headroom: float
    mistaken_for: str | None
    mistaken_share: float
    tiles: int | None
    labelled: int
    left_in_pool: int | None


class Decision(NamedTuple):
    """A verdict, the class that would come next (or None), and both in one or two sentences."""

    verdict: Literal["annotate", "stop", "exhausted"]
    next_class: str | None
    sentence: str


@dataclass(frozen=True)
class Advice:
    """The advice of a run.

    Attributes:
        round: the round that it rests on.
        rounds_used: number of rounds that the slopes rest on.
        next_labels: size of a further round: the mean of the last ones; NaN with a single round.
        unit: labels that slopes are quoted for: 100, or more where rounds are in the thousands.
        classes: one entry per class, largest share of the remaining errors first.
        macro_slope: change of the macro F1 per label over the last rounds.
        macro_trend: what that slope means.
        decision: what to do.
    """

    round: int
    rounds_used: int
    next_labels: float
    unit: int
    classes: tuple[ClassAdvice, ...]
    macro_slope: Slope
    macro_trend: Trend
    decision: Decision


def advise(run: RunData, *, split: str = "val") -> Advice | None:
    """Advice from the last evaluated rounds of a run.

    While the macro F1 moves by more than its noise, the class to annotate next is the one with the largest share of the
    remaining misses (Fuster et al. 2023, Algorithm 1: N_i = S FNR_i / sum FNR), passing over classes that stand still
    and those whose pool is empty. Once the macro F1 does not move, only a class that moves by itself is worth more
    labels; without one, the advice is to stop.

    Returns:
        The advice, or None where no round was evaluated on ``split``.
    """
    curve = run.curve("f1_macro", split)
    if not len(curve.rounds):
        return None
    rounds = [int(round_) for round_ in curve.rounds[-LAST_ROUNDS:]]
    labels = curve.labels[-LAST_ROUNDS:]
    next_labels = float(labels[-1] - labels[0]) / (len(labels) - 1) if len(labels) > 1 else math.nan
    matrices = [run.confusion(round_, split) for round_ in rounds]
    n_classes = len(run.classes)
    errors = np.array([np.full(n_classes, np.nan) if m is None else class_standard_errors(m) for m in matrices])
    values = np.array([[run.metric(r, split, f"{name}_f1") for name in run.classes] for r in rounds])
    fnr = _false_negative_rates(run, rounds[-1], split, matrices[-1])
    total = float(np.nansum(fnr))
    shares = np.nan_to_num(fnr) / total if total > 0 else np.zeros(n_classes)
    entries = [
        _entry(
            run,
            i,
            fit_slope(labels, values[:, i], errors[:, i]),
            float(fnr[i]),
            float(shares[i]),
            next_labels,
            float(values[-1, i]),
            matrices[-1],
        )
        for i in range(n_classes)
    ]
    ordered = tuple(sorted(entries, key=lambda entry: -entry.error_share))
    # The macro F1 is the mean of class scores; their sampling errors are taken as independent.
    macro_slope = fit_slope(labels, curve.values[-LAST_ROUNDS:], np.sqrt(np.nansum(errors**2, axis=1)) / n_classes)
    macro_trend = macro_slope.trend(next_labels)
    return Advice(
        round=rounds[-1],
        rounds_used=len(rounds),
        next_labels=next_labels,
        unit=100 if math.isnan(next_labels) or next_labels < 1000 else 10 ** int(math.log10(next_labels)),
        classes=ordered,
        macro_slope=macro_slope,
        macro_trend=macro_trend,
        decision=decide(ordered, macro_trend, rounds_used=len(rounds), next_labels=next_labels),
    )


def decide(classes: tuple[ClassAdvice, ...], macro_trend: Trend, *, rounds_used: int, next_labels: float) -> Decision:
    """The decision from the entries of all classes, largest share of the remaining errors first."""
    missed = [entry for entry in classes if entry.error_share > 0]
    if not missed:
        return Decision("stop", None, "Stop: the model misses nothing on the validation set; harder cases are needed.")
    if macro_trend in ("flat", "hidden"):
        wanted = [entry for entry in missed if entry.trend in ("rising", "falling")]
    else:
        wanted = [entry for entry in missed if entry.trend != "flat"]
    open_ = [entry for entry in wanted if entry.left_in_pool != 0]
    if open_:
        return Decision("annotate", open_[0].name, _annotate_sentence(open_[0], rounds_used, next_labels))
    if wanted:
        names = " or ".join(entry.name for entry in wanted)
        return Decision("exhausted", None, f"No unlabelled {names} is left in the pool: bring in slides that show it.")
    worst = missed[0]
    if macro_trend == "flat" or all(entry.trend == "flat" for entry in missed):
        return Decision(
            "stop",
            None,
            f"Stop: the last {rounds_used} rounds brought nothing that can be measured. {worst.name} holds the largest "
            f"part of what is still missed{_mistake_clause(worst)}: look at those tiles before labelling more of the "
            "same.",
        )
    head = f"Stop, or measure better: the last {rounds_used} rounds brought less than the noise of this validation set"
    left = next((entry for entry in missed if entry.left_in_pool != 0 and entry.trend != "flat"), None)
    if left is None:
        return Decision("stop", None, f"{head}, and the pool holds nothing more of what is missed.")
    return Decision("stop", left.name, f"{head}. If you go on, annotate {left.name}: {_share_clause(left)}.")


def _entry(
    run: RunData,
    index: int,
    slope: Slope,
    fnr: float,
    share: float,
    next_labels: float,
    f1: float,
    confusion: NDArray[np.int64] | None,
) -> ClassAdvice:
    labelled = int(run.class_counts(before_round=2**31)[index])
    pool = run.pool_counts
    gain = slope.per_label * next_labels
    mistaken_for, mistaken_share = _main_mistake(run.classes, index, confusion)
    return ClassAdvice(
        name=run.classes[index],
        f1=f1,
        fnr=fnr,
        error_share=share,
        slope=slope,
        trend=slope.trend(next_labels),
        next_gain=math.nan if math.isnan(gain) or math.isnan(f1) else min(max(gain, 0.0), 1.0 - f1),
        macro_headroom=(1.0 - f1) / len(run.classes),
        mistaken_for=mistaken_for,
        mistaken_share=mistaken_share,
        tiles=None if confusion is None else int(confusion[index].sum()),
        labelled=labelled,
        left_in_pool=None if pool is None else max(int(pool[index]) - labelled, 0),
    )


def _false_negative_rates(
    run: RunData, round_: int, split: str, confusion: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    recorded = np.array([run.metric(round_, split, f"{name}_fnr") for name in run.classes])
    if confusion is None:
        return recorded
    true = confusion.sum(axis=1)
    counted = np.where(true > 0, 1.0 - np.diag(confusion) / np.maximum(true, 1), np.nan)
    return np.where(np.isnan(recorded), counted, recorded)


def _main_mistake(
    classes: tuple[str, ...], index: int, confusion: NDArray[np.int64] | None
) -> tuple[str | None, float]:
    if confusion is None:
        return None, 0.0
    missed = confusion[index].copy()
    missed[index] = 0
    if missed.sum() == 0:
        return None, 0.0
    return classes[int(missed.argmax())], float(missed.max() / missed.sum())


def _annotate_sentence(entry: ClassAdvice, rounds_used: int, next_labels: float) -> str:
    head = f"Annotate {entry.name} next: {_share_clause(entry)}"
    if entry.trend == "unknown":
        return f"{head}. One round cannot say what more labels bring: run another before deciding to stop."
    if entry.trend == "hidden":
        tiles = "" if entry.tiles is None else f" of its {entry.tiles} validation tiles"
        return f"{head}. Its own gain is below the noise{tiles}, but the average still rises."
    if entry.trend == "falling":
        return f"{head}, and its F1 fell over the last {rounds_used} rounds while the labels went elsewhere."
    doubt = "" if entry.trend == "rising" else ", hardly more than noise"
    error = entry.slope.error_per_label * next_labels
    return (
        f"{head}. Another {next_labels:,.0f} labels, at the pace of the last {rounds_used} rounds, may bring its F1 "
        f"from {entry.f1:.2f} to {entry.f1 + entry.next_gain:.2f} (± {error:.2f}{doubt})."
    )


def _share_clause(entry: ClassAdvice) -> str:
    return f"it holds {entry.error_share:.0%} of what is still missed{_mistake_clause(entry)}"


def _mistake_clause(entry: ClassAdvice) -> str:
    return "" if entry.mistaken_for is None else f" (mostly taken for {entry.mistaken_for})"
