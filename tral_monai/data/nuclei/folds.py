# SPDX-License-Identifier: Apache-2.0
"""Folds of annotated fields: whole patients, slides or hospitals, or single images as the OSAL-ND paper has it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import CohortError, ConfigError

GroupBy = Literal["auto", "hospital", "patient", "slide", "image"]
"""What stays together, coarsest first. ``auto``: the coarsest that is known for all fields and gives enough groups."""

_DRAWS = 64
_LEVELS = ("hospital", "patient", "slide", "image")


def group_fields(
    fields: Sequence[NucleusField], *, group_by: GroupBy = "auto", at_least: int = 2
) -> tuple[str, npt.NDArray[np.int64]]:
    """Which fields must stay on one side of every split.

    Fields that share what ``group_by`` names, or anything finer, are one group: two fields of one patient stay together
    under ``hospital`` even where the table gives the patient two hospitals. ``image`` separates images even of
    one patient; that is the paper's random division, in which a patient may be on both sides.

    Args:
        fields: The fields.
        group_by: See :data:`GroupBy`.
        at_least: How many groups are needed.

    Returns:
        The level that was used, and (n,) the group of each field, numbered from 0 in the order of the fields.

    Raises:
        ConfigError: ``group_by`` is unknown, or the fields do not say their group.
        CohortError: There are fewer groups than needed.
    """
    if group_by not in get_args(GroupBy):
        raise ConfigError(f"group_by must be one of {list(get_args(GroupBy))}, but is {group_by!r}")
    if group_by != "auto":
        unknown = [field.name for field in fields if not _key(field, group_by)]
        if unknown:
            raise ConfigError(
                f"group_by is '{group_by}', but the {group_by} of {len(unknown)} of {len(fields)} fields is not known "
                f"(such as {unknown[0]}); use group_by=auto or image"
            )
        groups = _components(fields, group_by)
        if len(np.unique(groups)) < at_least:
            raise CohortError(_too_few(group_by, len(np.unique(groups)), at_least))
        return group_by, groups
    for level in _LEVELS:
        if all(_key(field, level) for field in fields):
            groups = _components(fields, level)
            if len(np.unique(groups)) >= at_least:
                return level, groups
    raise CohortError(_too_few("image", len(np.unique(_components(fields, "image"))), at_least))


def assign_folds(
    groups: npt.NDArray[np.int64], nuclei: npt.ArrayLike, folds: int, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Give every group a fold so that the folds hold about the same number of nuclei, and of each class.

    Groups come in a random order that prefers the heavy ones, each to the fold that is lightest so far. So the fold
    with most nuclei exceeds that with fewest by no more than the heaviest group, and every fold has a group. Of 64
    such divisions, the one is taken that comes nearest to giving every fold half its fair share of each class: by
    chance alone, a class that lies in few images is easily missing from a fold, which then cannot test it.

    Args:
        groups: (n,) group of each field.
        nuclei: (n,) nuclei of each field, or (n, C) nuclei of each class.
        folds: Number of folds.
        seed: Another seed gives another division; the same gives the same.

    Returns:
        (n,) fold of each field, 0 to ``folds`` - 1.

    Raises:
        ConfigError: ``folds`` is below 1.
        CohortError: There are fewer groups than folds.
    """
    if folds < 1:
        raise ConfigError(f"folds must be at least 1, but is {folds!r}")
    names, of_field = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise CohortError(_too_few("group", len(names), folds))
    of_class = np.asarray(nuclei, dtype=np.float64).reshape(len(groups), -1)
    counts = np.zeros((len(names), of_class.shape[1]))
    np.add.at(counts, of_field, of_class)
    half_share = np.maximum(counts.sum(0) / (2 * folds), 1e-9)
    best, best_cover = np.zeros(len(names), dtype=np.int64), -1.0
    for draw in range(_DRAWS):
        fold_of = _divide(counts.sum(1), folds, np.random.default_rng([seed, draw]))
        of_fold = np.zeros((folds, counts.shape[1]))
        np.add.at(of_fold, fold_of, counts)
        cover = float(np.minimum(of_fold / half_share, 1).sum())
        if cover > best_cover:
            best, best_cover = fold_of, cover
        if cover >= folds * np.count_nonzero(counts.sum(0)) - 1e-9:
            break
    return best[of_field]


def _divide(nuclei: npt.NDArray[np.float64], folds: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """One division of groups: the fold of each."""
    weight = nuclei + 1  # so that groups without any nucleus are spread as well
    order = np.argsort(-weight * generator.uniform(0.5, 1.5, len(weight)), kind="stable")
    # The folds by load; a draw decides among equal ones.
    heap = [(0.0, int(place), fold) for fold, place in enumerate(generator.permutation(folds))]
    heapq.heapify(heap)
    fold_of = np.zeros(len(weight), dtype=np.int64)
    for group in order:
        load, place, fold_of[group] = heap[0]
        heapq.heapreplace(heap, (load + float(weight[group]), place, int(fold_of[group])))
    return fold_of


def given_folds(fields: Sequence[NucleusField], fold_of_slide: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Folds from a published list, such as those of NuCLS.

    Args:
        fields: The fields.
        fold_of_slide: Slide name (or patient or field name) to the fold in which it is tested. The folds are
            numbered from 0 in ascending order of their published numbers.

    Returns:
        (n,) fold of each field.

    Raises:
        CohortError: A field's slide is not in the list, or its slide and patient stand in different folds.
    """
    numbers = {number: rank for rank, number in enumerate(sorted(set(fold_of_slide.values())))}
    folds, missing = [], []
    for field in fields:
        names = {name for name in (field.slide, field.patient, field.name) if name is not None}
        found = {fold_of_slide[name] for name in names if name in fold_of_slide}
        if len(found) > 1:
            raise CohortError(f"{field.name}: the list puts it in the folds {sorted(found)}; a field is tested once")
        if not found:
            missing.append(field.slide or field.name)
        folds.append(numbers[found.pop()] if found else -1)
    if missing:
        raise CohortError(
            f"the list of folds lacks {len(set(missing))} slides, such as {min(missing)}; add them, or leave out "
            "fold_of_slide to have folds drawn"
        )
    return np.asarray(folds, dtype=np.int64)


def choose_validation(
    groups: npt.NDArray[np.int64], weights: Sequence[int], fraction: float, *, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Take groups at random for validation until they hold ``fraction`` of the nuclei; at least one group stays out.

    Args:
        groups: (n,) group of each field that may be taken.
        weights: (n,) nuclei of each field.
        fraction: 0 takes none; else at least one group is taken.
        seed: Of the draw.

    Returns:
        (n,) True for fields of the validation part.

    Raises:
        ConfigError: The fraction is not in 0 to below 1.
        CohortError: There is only one group.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"val_fraction must be from 0 to below 1, but is {fraction!r}")
    names, of_field = np.unique(groups, return_inverse=True)
    if fraction == 0:
        return np.zeros(len(groups), dtype=np.bool_)
    if len(names) < 2:
        raise CohortError(_too_few("group", len(names), 2) + " (val_fraction takes one from the training part)")
    weight = np.bincount(of_field, weights=np.asarray(weights, dtype=np.float64), minlength=len(names)) + 1
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    before = np.concatenate([[0], np.cumsum(weight[order])])[:-1]
    taken = order[:-1][before[:-1] < fraction * weight.sum()]
    return np.isin(of_field, taken)


def _key(field: NucleusField, level: str) -> str | None:
    if level == "image":
        return str(field.image) if field.image is not None else field.name
    value: str | None = getattr(field, level)
    return value


def _components(fields: Sequence[NucleusField], level: str) -> npt.NDArray[np.int64]:
    """Connected fields: those that share a key at this level or a finer one, and so on through others."""
    parent = list(range(len(fields)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, field in enumerate(fields):
        for finer in _LEVELS[_LEVELS.index(level) :]:
            key = _key(field, finer)
            if key:
                low, high = sorted((root(first.setdefault((finer, key), index)), root(index)))
                parent[high] = low
    roots = [root(index) for index in range(len(fields))]
    return np.unique(np.asarray(roots, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def _too_few(level: str, have: int, need: int) -> str:
    what = {"image": "images", "group": "groups"}.get(level, f"{level}s")
    finer = "a finer group_by, " if level in ("hospital", "patient", "slide") else ""
    return f"{need} folds need {need} {what} or more, but there are {have}; use {finer}fewer folds or more data"
