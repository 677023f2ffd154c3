from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.dataset.index import IdIndex
from avrec_spark.errors import DataError

ids_of_one_type = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), min_size=1), st.lists(st.text("abcé中_-", min_size=1), min_size=1)
)


@settings(deadline=None)
@given(ids_of_one_type, st.integers(0, 9))
def test_decoding_what_was_encoded_gives_the_ids_back(ids: list[object], seed: int) -> None:
    index = IdIndex.from_ids(ids, seed)
    assert index.decode(index.encode(ids)).tolist() == ids
    assert len(index) == len(set(ids))


@settings(deadline=None)
@given(ids_of_one_type, st.randoms())
def test_the_order_in_which_ids_arrive_does_not_matter(ids: list[object], random: object) -> None:
    shuffled = list(ids)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert IdIndex.from_ids(ids, 1).ids.tolist() == IdIndex.from_ids(shuffled, 1).ids.tolist()


def test_positions_say_nothing_about_the_order_of_ids() -> None:
    index = IdIndex.from_ids(range(2000), seed=42)
    assert abs(np.corrcoef(index.encode(range(2000)), np.arange(2000))[0, 1]) < 0.1


def test_another_seed_gives_another_order() -> None:
    assert IdIndex.from_ids(range(100), 1).ids.tolist() != IdIndex.from_ids(range(100), 2).ids.tolist()


@pytest.mark.parametrize(("known", "unknown"), [([1, 2, 3], [4, -1]), (["a", "b"], ["c", ""]), ([1, 2], ["1", "x"])])
def test_unknown_ids_are_minus_one(known: list[object], unknown: list[object]) -> None:
    assert IdIndex.from_ids(known, 0).encode(unknown).tolist() == [-1, -1]


def test_integers_that_came_as_objects_stay_integers() -> None:
    index = IdIndex.from_ids(np.array([3, 1, 2], dtype=object), 0)
    assert index.ids.dtype == np.int64
    assert sorted(index.ids.tolist()) == [1, 2, 3]


@pytest.mark.parametrize("ids", [[1, "a"], ["a", None], [1.0, float("nan")]])
def test_missing_ids_and_ids_of_two_types_are_refused(ids: list[object]) -> None:
    with pytest.raises(DataError, match="Some ids are missing, or they are not all of one type"):
        IdIndex.from_ids(ids, 0)
