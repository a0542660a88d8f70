# SPDX-License-Identifier: Apache-2.0
"""What to do next, in one paragraph: go on or stop, and which known class the answers lack.

Only the validation set and the answers are looked at, so that the test set stays untouched by any decision.
"""

from __future__ import annotations

import math

import numpy as np

from tral_monai.report.nuclei.run_data import MAP50, NucleusRunData
from tral_monai.report.slopes import fit_slope
from tral_monai.report.summary import count, number

LAST_ROUNDS = 3
WORTHWHILE = 0.01  # mAP that a further round of the same size should bring
FEW_BOXES = 20  # below this a class cannot be learnt from, whatever the strategy
FEW_UNKNOWN = 10  # below this the prototype of the unknown rests on next to nothing


def next_step(run: NucleusRunData) -> str:
    """One or more sentences of plain text.

    The gain is that of a straight line through the last three rounds of the validation set. Without one, nothing is
    said about stopping: a decision that rests on test scores spoils them.
    """
    waiting = _waiting(run)
    if waiting:
        return waiting
    if not run.evaluated_rounds:
        return "nothing was evaluated yet, so there is no advice."
    return " ".join(part for part in (_gain(run), _purity(run), _classes(run)) if part)


def _waiting(run: NucleusRunData) -> str:
    queries, labels = run.tables["queries"], run.tables["labels"]
    open_ = queries[~queries["sample_id"].isin(labels["sample_id"])]
    if open_.empty:
        return ""
    fields = count(len(open_), "field")
    return f"{fields} of round {int(open_['round'].max())} still {'waits' if len(open_) == 1 else 'wait'} for answers."


def _gain(run: NucleusRunData) -> str:
    if "val" not in run.splits:
        return "There is no validation set, so this page does not say when to stop: the test set must not decide it."
    curve = run.cost_curve(MAP50, "val", "boxes")
    boxes, values = curve.labels[-LAST_ROUNDS:], curve.values[-LAST_ROUNDS:]
    slope = fit_slope(boxes, values, np.zeros(len(boxes))).per_label
    if math.isnan(slope):
        return "One round cannot say what more labels bring: run another before deciding to stop."
    step = float(boxes[-1] - boxes[0]) / (len(boxes) - 1)
    gain = slope * step
    if gain < WORTHWHILE:
        moved = round(gain, 3) + 0.0  # never -0
        return (
            f"Consider stopping: over the last {len(boxes)} rounds the validation mAP moved by {moved:+.3f} per round, "
            f"and another one costs about {number(round(step))} boxes."
        )
    return (
        f"Go on: another {number(round(step))} boxes, at the pace of the last {len(boxes)} rounds, may bring the "
        f"validation mAP from {values[-1]:.2f} to {min(values[-1] + gain, 1.0):.2f}."
    )


def _purity(run: NucleusRunData) -> str:
    pairs = [(found, run.pool_rate(round_)) for round_, found in run.queried.items()]
    known = [(found.purity, rate.purity) for found, rate in pairs if rate is not None and found.known + found.unknown]
    if not known or run.strategy == "random":
        return ""
    asked, pool = (float(np.mean([pair[i] for pair in known])) for i in (0, 1))
    if asked >= pool:
        return ""
    ticked = sum(found.unknown for found in run.yields.values())
    why = f"; only {count(ticked, 'nucleus')} ticked unknown so far".replace("nucleuss", "nuclei")
    return (
        f"The fields asked for were less pure than the pool ({asked:.0%} against {pool:.0%} known nuclei): the model "
        f"does not yet tell known from unknown{why if ticked < FEW_UNKNOWN else ''}."
    )


def _classes(run: NucleusRunData) -> str:
    counts = run.class_counts(2**31)
    rare = [(int(n), name) for n, name in zip(counts, run.classes, strict=True) if n < FEW_BOXES]
    if not rare:
        return ""
    names = ", ".join(f"{name} ({n})" for n, name in sorted(rare))
    return f"Few boxes to learn from: {names}. Look for fields that show {'it' if len(rare) == 1 else 'them'}."
