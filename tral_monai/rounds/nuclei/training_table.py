# SPDX-License-Identifier: Apache-2.0
"""What a round trains on: the fields of view that the annotator has seen, with the answers that came back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.rounds.ledger import Ledger


def training_table(ledger: Ledger, index: pd.DataFrame, *, before_round: int | None = None) -> pd.DataFrame:
    """Fields of view with the recorded boxes and answers in ``boxes_px`` and ``classes``, ordered by id.

    Nothing of the index's own annotations is kept: both detectors of a round learn from what was paid for.

    Args:
        ledger: the run's record.
        index: fields of view of the pool.
        before_round: only answers that training in this round may use; None takes all.
    """
    labels = ledger.labels(before_round=before_round).dropna(subset=["class_given"])
    rows = index[index["id"].isin(labels["sample_id"])].sort_values("id").reset_index(drop=True)
    of_sample = dict(list(ledger.nuclei(before_round=before_round).groupby("sample_id")))
    boxes, names = np.empty(len(rows), dtype=object), np.empty(len(rows), dtype=object)
    for position, number in enumerate(rows["id"]):
        nuclei = of_sample.get(number)
        sides = None if nuclei is None else nuclei[["xmin", "ymin", "xmax", "ymax"]]
        boxes[position] = np.empty((0, 4), np.float32) if sides is None else sides.to_numpy(np.float32)
        names[position] = () if nuclei is None else tuple(nuclei["answer"])
    return rows.assign(boxes_px=boxes, classes=names)


def count_answers(table: pd.DataFrame, answers: Sequence[str]) -> npt.NDArray[np.float64]:
    """Nuclei of each answer in a table of :func:`training_table`, in the order of ``answers``."""
    counts = pd.Series([name for names in table["classes"] for name in names], dtype=object).value_counts()
    return np.array([counts.get(name, 0) for name in answers], dtype=np.float64)
