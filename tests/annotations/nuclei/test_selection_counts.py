# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from tral_monai.annotations.nuclei.data_sets import known_classes
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.annotations.nuclei.nucls import read_nucls
from tral_monai.annotations.nuclei.selection_counts import (
    FieldCounts,
    choose_top,
    count_nuclei,
    random_selection,
    selected,
    selection_table,
)
from tral_monai.errors import AnnotationError, ConfigError


def field(name, classes, ignored=None):
    count = len(classes)
    return NucleusField(
        name=name,
        image=None,
        width_px=9,
        height_px=9,
        mpp=0.2,
        boxes_px=np.tile([0, 0, 2, 2], (count, 1)),
        classes=tuple(classes),
        ignored=ignored or [False] * count,
    )


# Four fields; by total count the third is best, by known count the first.
COUNTS = FieldCounts(known=np.array([8, 1, 6, 0]), unknown=np.array([0, 1, 6, 3]))


def test_nuclei_are_counted_without_the_ignored_ones():
    fields = [field("a", "TTMx", [False, False, False, True]), field("b", ""), field("c", "MT", [False, True])]
    counts = count_nuclei(fields, ["T"])
    assert counts.known.tolist() == [2, 0, 0]
    assert counts.unknown.tolist() == [1, 0, 1]
    assert counts.total.tolist() == [3, 0, 1]
    with pytest.raises(AnnotationError, match=r"the known classes \['x'\] occur in no field, only \['M', 'T'\]"):
        count_nuclei(fields, ["T", "x"])


def test_the_highest_come_first_and_ties_keep_their_order():
    assert choose_top([1, 5, 2, 5], 3).tolist() == [1, 3, 2]


def test_the_table_by_hand():
    table = selection_table(COUNTS, fraction=0.25, seeds=1000)
    assert (table.fields, table.chosen) == (4, 1)
    assert (table.total_count.known, table.total_count.unknown, table.total_count.purity) == (6, 6, 0.5)
    assert (table.oracle.known, table.oracle.purity) == (8, 1.0)
    assert table.random.known == pytest.approx(15 / 4, abs=0.35)
    assert table.random.unknown == pytest.approx(10 / 4, abs=0.35)
    assert table.unknown_share == 10 / 25
    assert table.fields_with_unknown == 3 / 4
    # Ranks of known: 4, 2, 3, 1; of total (8, 2, 12, 3): 3, 1, 4, 2. Squared differences 1 + 1 + 1 + 1 = 4.
    assert table.rank_correlation == pytest.approx(1 - 6 * 4 / (4 * 15))
    assert table.density_share == pytest.approx((6 - table.random.known) / (8 - table.random.known))


def test_choosing_all_gains_nothing():
    table = selection_table(COUNTS, fraction=1.0, seeds=2)
    assert table.random == table.total_count == table.oracle == selected(COUNTS, range(4))
    assert math.isnan(table.density_share)


def test_the_papers_fraction_is_rounded_down():
    counts = FieldCounts(np.arange(1746), np.arange(1746))
    assert selection_table(counts, seeds=1).chosen == 261  # 15 % are 261.9
    assert (
        selection_table(FieldCounts(np.arange(20), np.arange(20)), seeds=1).chosen == 3
    )  # 0.15 * 20 is not 3 in binary
    assert selection_table(COUNTS, seeds=1).chosen == 1


def test_random_is_repeatable_and_draws_without_replacement():
    assert random_selection(COUNTS, 2, seeds=5) == random_selection(COUNTS, 2, seeds=5)
    assert random_selection(COUNTS, 4, seeds=3) == selected(COUNTS, range(4))


def test_constant_or_empty_counts_have_no_correlation_and_no_purity():
    same = FieldCounts(np.array([2, 2]), np.array([0, 0]))
    assert math.isnan(selection_table(same, seeds=1).rank_correlation)
    none = FieldCounts(np.array([0, 0]), np.array([0, 0]))
    table = selection_table(none, seeds=1)
    assert math.isnan(table.unknown_share)
    assert math.isnan(table.oracle.purity)


def test_wrong_arguments():
    for fraction in (0, 1.5, math.nan):
        with pytest.raises(ConfigError, match="fraction must be more than 0 and at most 1, but is"):
            selection_table(COUNTS, fraction=fraction)
    with pytest.raises(ConfigError, match="seeds must be at least 1, but is 0"):
        selection_table(COUNTS, seeds=0)
    with pytest.raises(AnnotationError, match="there is no field to choose from"):
        selection_table(FieldCounts(np.empty(0, int), np.empty(0, int)))


@pytest.mark.parametrize(
    # Of the whole data set, known before: rank correlation 0.97, 0.97, 0.78; unknown share 3.8, 4.2, 15.0 %; fields
    # with any 15, 23, 42 %; density 97.4 % (5+2) and 78.8 % (3+4) of the oracle's gain. Here are 64 % of the fields.
    ("setting", "correlation", "unknown", "fields", "density"),
    [("5+2", 0.97, 0.038, 0.15, 0.974), ("4+3", 0.97, 0.042, 0.23, None), ("3+4", 0.78, 0.150, 0.42, 0.788)],
)
def test_the_real_tables_agree_with_the_whole_data_set(tral_data, setting, correlation, unknown, fields, density):
    nucls = read_nucls(tral_data / "nucls_annotations", area="image")
    table = selection_table(count_nuclei(nucls, known_classes("nucls", setting)))
    assert table.chosen == 168
    assert table.rank_correlation == pytest.approx(correlation, abs=0.01)
    assert table.unknown_share == pytest.approx(unknown, abs=0.005)
    assert table.fields_with_unknown == pytest.approx(fields, abs=0.04)
    assert density is None or table.density_share == pytest.approx(density, abs=0.03)
    # 15 % of all known nuclei, drawn at random.
    known = int(count_nuclei(nucls, known_classes("nucls", setting)).known.sum())
    assert table.random.known == pytest.approx(0.15 * known, rel=0.02)
