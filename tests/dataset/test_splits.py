from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.dataset.splits import split_users, stratified_split

# A shared machine has slow moments, so that no example is timed.
quick = settings(deadline=None, max_examples=30)

# A user and its number of items; items and times follow from the position.
users = st.dictionaries(st.integers(0, 30), st.integers(1, 25), min_size=1, max_size=6)


def pairs_of(counts: dict[int, int]) -> pd.DataFrame:
    rows = [(user, item, (item * 7) % 5) for user, count in counts.items() for item in range(count)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def by_pair(split: pd.DataFrame) -> dict[tuple[Any, Any], str]:
    return {(row.user_id, row.item_id): row.split for row in split.itertuples()}


def test_the_latest_items_are_test_and_those_before_validation() -> None:
    pairs = pd.DataFrame({"user_id": 7, "item_id": range(10), "timestamp": range(10)})
    split = split_users(pairs, validation_share=0.1, test_share=0.2)["split"].tolist()
    assert split == ["train"] * 7 + ["validation"] + ["test"] * 2


def test_three_items_give_one_to_each_part_and_two_stay_in_train() -> None:
    pairs = pd.DataFrame(
        {"user_id": ["a", "b", "a", "b", "a"], "item_id": [1, 1, 2, 2, 3], "timestamp": [3, 1, 2, 2, 1]}
    )
    split = split_users(pairs, 0.1, 0.1)
    assert split["split"].tolist() == ["test", "train", "validation", "train", "train"]


@quick
@given(users, st.floats(0.01, 0.49), st.floats(0.01, 0.49), st.sampled_from(["time", "random"]))
def test_whoever_has_three_items_has_one_in_every_part(
    counts: dict[int, int], validation: float, test: float, by: Any
) -> None:
    split = split_users(pairs_of(counts), validation, test, by=by)
    for user, rows in split.groupby("user_id"):
        expected = {"train", "validation", "test"} if counts[user] >= 3 else {"train"}
        assert set(rows["split"]) == expected


@quick
@given(users, st.integers(0, 2**32 - 1), st.sampled_from(["time", "random"]))
def test_the_order_and_labels_of_rows_change_nothing(counts: dict[int, int], seed: int, by: Any) -> None:
    pairs = pairs_of(counts)
    shuffled = pairs.sample(frac=1, random_state=seed).set_axis([0] * len(pairs))
    assert by_pair(split_users(pairs, 0.1, 0.2, by=by)) == by_pair(split_users(shuffled, 0.1, 0.2, by=by))


@quick
@given(users)
def test_users_are_split_alone_as_they_are_together(counts: dict[int, int]) -> None:
    pairs = pairs_of(counts)
    alone = pd.concat([split_users(rows, 0.1, 0.2) for _, rows in pairs.groupby("user_id")])
    assert by_pair(alone) == by_pair(split_users(pairs, 0.1, 0.2))


def test_ties_in_time_do_not_favour_low_ids() -> None:
    pairs = pd.DataFrame({"user_id": np.repeat(np.arange(300), 10), "item_id": np.tile(np.arange(10), 300)})
    split = split_users(pairs.assign(timestamp=0), 0.1, 0.1)
    share = split[split["split"] == "test"].groupby("item_id").size() / 300
    assert share.between(0.04, 0.16).all()


def test_another_seed_breaks_ties_otherwise() -> None:
    pairs = pd.DataFrame({"user_id": 1, "item_id": range(50), "timestamp": 0})
    assert by_pair(split_users(pairs, 0.2, 0.2, seed=1)) != by_pair(split_users(pairs, 0.2, 0.2, seed=2))


def test_spark_splits_as_pandas_does(spark: Any) -> None:
    pairs = pairs_of({1: 2, 2: 3, 3: 11, 4: 20})
    schema = "user_id bigint, item_id bigint, timestamp bigint, split string"
    frame = spark.createDataFrame(pairs).repartition(3)
    there = frame.groupBy("user_id").applyInPandas(lambda rows: split_users(rows, 0.1, 0.2), schema).toPandas()
    assert by_pair(there) == by_pair(split_users(pairs, 0.1, 0.2))


def test_a_stratified_split_rounds_three_quarters_of_each_item() -> None:
    sizes = [1, 2, 3, 4, 6, 10]
    rows = pd.DataFrame({"item_id": np.repeat(sizes, sizes)})
    rows = rows.assign(user_id=np.arange(len(rows)), row=np.arange(len(rows)))
    train, test = stratified_split(rows)
    # Halves go to the even number: 1.5 → 2, 4.5 → 4, 7.5 → 8.
    assert train.groupby("item_id").size().to_dict() == {1: 1, 2: 2, 3: 2, 4: 3, 6: 4, 10: 8}
    assert sorted([*train["row"], *test["row"]]) == list(range(len(rows)))


def test_a_stratified_split_takes_the_lowest_draws_in_file_order() -> None:
    rows = pd.DataFrame({"item_id": ["a"] * 4, "user_id": [1, 2, 3, 4], "row": [0, 1, 2, 3]})
    draws = np.random.RandomState(5).rand(4)
    _, test = stratified_split(rows, seed=5)
    assert test["row"].tolist() == [draws.argmax()]


@quick
@given(st.integers(0, 2**32 - 1))
def test_a_stratified_split_reads_file_order_from_the_column_row(seed: int) -> None:
    rows = pd.DataFrame({"item_id": np.arange(40) % 5, "user_id": np.arange(40), "row": np.arange(40)})
    shuffled = rows.sample(frac=1, random_state=seed)
    for part, same in zip(stratified_split(rows), stratified_split(shuffled), strict=True):
        pd.testing.assert_frame_equal(part, same)


@pytest.mark.parametrize("by", ["item_id", "user_id"])
def test_a_stratified_split_can_go_by_user_or_item(by: str) -> None:
    rows = pd.DataFrame({"item_id": np.arange(40) % 10, "user_id": np.arange(40) // 4, "row": np.arange(40)})
    train, _ = stratified_split(rows, by=by)
    assert set(train.groupby(by).size()) == {3}
