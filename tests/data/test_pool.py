# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tral_monai.data.pool import Pool
from tral_monai.errors import PoolError


def make_pool() -> Pool:
    return Pool([30, 10, 20, 40], groups={"patient": ["a", "b", "a", "c"]})


def test_a_new_pool_is_all_unlabelled_in_the_order_given():
    pool = make_pool()
    assert pool.unlabelled.tolist() == [30, 10, 20, 40]
    assert pool.labelled.size == pool.rejected.size == 0
    assert len(pool) == 4


def test_label_and_reject_move_ids():
    pool = make_pool()
    pool.label([20, 30])
    pool.reject(np.array([40]))
    assert pool.labelled.tolist() == [30, 20]
    assert pool.rejected.tolist() == [40]
    assert pool.unlabelled.tolist() == [10]


def test_group_follows_the_ids_asked():
    assert make_pool().group("patient", [40, 30, 10]).tolist() == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([99], "id 99 is not in the pool of 4 ids"), ([10], "id 10 is already labelled"), ([20, 20], "given twice")],
)
def test_bad_ids_change_nothing(ids, message):
    pool = make_pool()
    pool.label([10])
    with pytest.raises(PoolError, match=message):
        pool.label([30, *ids])
    assert pool.labelled.tolist() == [10]


def test_rejected_ids_cannot_be_labelled():
    pool = make_pool()
    pool.reject([10])
    with pytest.raises(PoolError, match="id 10 is already rejected"):
        pool.label([10])


def test_state_round_trip():
    pool, other = make_pool(), make_pool()
    pool.label([20])
    pool.reject([40])
    other.load_state_dict(pool.state_dict())
    assert other.state_dict() == {"labelled": [20], "rejected": [40]}


def test_state_with_unknown_ids_is_refused_and_changes_nothing():
    pool = make_pool()
    pool.label([20])
    with pytest.raises(PoolError, match="id 7 is not in the pool"):
        pool.load_state_dict({"labelled": [7], "rejected": []})
    assert pool.labelled.tolist() == [20]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"ids": [1, 2, 1]}, "1 stands more than once"),
        ({"ids": [[1], [2]]}, "one-dimensional"),
        ({"ids": [1, 2], "groups": {"slide": ["a"]}}, "group 'slide' has 1 entries for 2 ids"),
    ],
)
def test_constructor_checks(kwargs, message):
    with pytest.raises(PoolError, match=message):
        Pool(**kwargs)


def test_unknown_group():
    with pytest.raises(PoolError, match=r"no group 'scanner'; it has \['patient'\]"):
        make_pool().group("scanner", [10])


def test_an_empty_pool_knows_no_id():
    with pytest.raises(PoolError, match="pool of 0 ids"):
        Pool([]).label([1])
