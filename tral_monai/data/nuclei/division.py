# SPDX-License-Identifier: Apache-2.0
"""How a nucleus index divides its data: fields into train, val and test; classes into known and unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.folds import GroupBy, assign_folds, choose_validation, given_folds, group_fields
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError

PARTS = ("train", "val", "test")


def divide_fields(
    fields: Sequence[NucleusField],
    *,
    folds: int,
    fold: int | None,
    group_by: GroupBy,
    fold_of_slide: Mapping[str, int] | None,
    val_fraction: float,
    seed: int,
) -> tuple[list[str], str, list[str]]:
    """The part of each field.

    Args:
        fields: The fields.
        folds: Number of folds; 1 puts everything into ``test``.
        fold: Which of them is ``test``, from 0; None has no test part.
        group_by: What stays on one side.
        fold_of_slide: A published list instead of a draw; its folds count from 0.
        val_fraction: Part of the training nuclei to hold back as ``val``.
        seed: Of the draws.

    Returns:
        A part per field; the level of the groups; and problems, one sentence each.

    Raises:
        ConfigError: There is no such fold, or the fields do not say their groups.
        CohortError: There are too few groups, or the list lacks a slide.
    """
    folds = folds if fold_of_slide is None else len(set(fold_of_slide.values()))
    if fold is not None and not 0 <= fold < folds:
        raise ConfigError(f"fold must be from 0 to {folds - 1} (there are {folds} folds), but is {fold!r}")
    needed = folds if fold is not None and fold_of_slide is None else 1
    level, groups = group_fields(fields, group_by=group_by, at_least=max(needed, 2) if val_fraction else needed)
    problems = []
    if fold_of_slide is not None:
        fold_of_field = given_folds(fields, fold_of_slide)
        torn = sum(len(np.unique(fold_of_field[groups == group])) > 1 for group in np.unique(groups))
        if torn and fold is not None:
            problems.append(f"fold_of_slide puts {torn} {level}s into more than one fold")
    else:
        # Of all classes, known or not: so that the open-set settings of one seed have the same folds.
        counters = [_class_counts([field]) for field in fields]
        names = sorted(set().union(*counters))
        of_class = [[counter[name] for name in names] for counter in counters]
        fold_of_field = assign_folds(groups, of_class, folds if fold is not None else 1, seed=seed)
    test = fold_of_field == fold if fold is not None else np.zeros(len(fields), dtype=np.bool_)
    parts = np.where(test, "test", "train").astype(object)
    rest = np.flatnonzero(~test)
    if val_fraction and len(rest):
        taken = choose_validation(groups[rest], [len(fields[row]) for row in rest], val_fraction, seed=seed)
        parts[rest[taken]] = "val"
    return [str(part) for part in parts], level, problems


def divide_classes(
    fields: Sequence[NucleusField], *, known: Sequence[str], unknown: Sequence[str] | None, must_occur: bool
) -> tuple[OpenSet, list[str]]:
    """The classes of the data, known and unknown.

    Args:
        fields: The fields.
        known: Known classes in the detector's order.
        unknown: Unknown classes; None takes all others that occur. MONAI's configurations turn ``#`` into ``::``: a
            class of the data that was meant so is taken by its own name.
        must_occur: Whether a known class that does not occur at all is an error: it is most likely mistyped.

    Returns:
        The division, and problems, one sentence each: classes on neither side, whose nuclei are to be ignored.

    Raises:
        ConfigError: A known class does not occur, holds ``#``, or the division cannot be.
    """
    counts = _class_counts(fields)
    known = _as_in_data(known, counts)
    unknown = None if unknown is None else _as_in_data(unknown, counts)
    hashed = [name for name in known if "#" in name]
    if hashed:  # the training of each round would get them as ::, and so would its checkpoint
        raise ConfigError(
            f"the known classes {hashed} hold '#', which MONAI turns into '::' in every configuration; rename them in "
            "the annotations"
        )
    absent = sorted(set(known) - set(counts))
    if must_occur and absent:
        raise ConfigError(
            f"the known classes {absent} do not occur in the data, whose classes are {sorted(counts)}; "
            "correct the names in known"
        )
    if unknown is None:
        return OpenSet.of(known, counts), []
    open_set = OpenSet(tuple(known), tuple(unknown))
    neither = sorted(set(counts) - set(open_set.known) - set(open_set.unknown))
    return open_set, [
        f"class '{name}' ({counts[name]} nuclei) is neither known nor unknown: its nuclei are ignored; add it to one "
        "of the lists to have them count"
        for name in neither
    ]


def _as_in_data(names: Sequence[str], occurring: Iterable[str]) -> list[str]:
    """Names with the ``#`` that MONAI's reference resolver replaced by ``::``, where the data have such a class."""
    own = set(occurring)
    rewritten = {name.replace("#", "::"): name for name in own}
    return [name if name in own else rewritten.get(name, name) for name in names]


def draw_fovs(table: pd.DataFrame, most: int | None, *, seed: int) -> pd.DataFrame:
    """At most about ``most`` rows of a table of FOVs, from each part its share and at least one.

    Args:
        table: With the column ``part``.
        most: How many; None keeps all.
        seed: Of the draw.
    """
    if most is None or len(table) <= most:
        return table
    generator = np.random.default_rng([seed, 2])
    kept: list[int] = []
    for part in PARTS:
        rows = np.flatnonzero(table["part"] == part)
        share = max(round(most * len(rows) / len(table)), 1)
        kept += generator.permutation(rows)[:share].tolist()
    return table.iloc[sorted(kept)].reset_index(drop=True)


def _class_counts(fields: Sequence[NucleusField]) -> Counter[str]:
    """Nuclei of each class that are not ignored."""
    return Counter(name for field in fields for name, off in zip(field.classes, field.ignored, strict=True) if not off)
