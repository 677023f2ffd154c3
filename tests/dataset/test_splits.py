from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark import config
from avrec_spark.dataset import splits
from avrec_spark.dataset.splits import Split, leave_last_out, split_groups, stratified_split
from avrec_spark.errors import DataError, SettingsError

# A shared machine has slow moments, so that no example is timed.
quick = settings(deadline=None, max_examples=30)

# A user and its number of items; items and times follow from the position.
users = st.dictionaries(st.integers(0, 30), st.integers(1, 25), min_size=1, max_size=6)


def pairs_of(counts: dict[int, int]) -> pd.DataFrame:
    rows = [(user, item, (item * 7) % 5) for user, count in counts.items() for item in range(count)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


KINDS = get_args(splits.Kind)
LEVEL = {"train": 0, "validation": 1, "test": 2}
HOW = st.builds(
    Split,
    st.sampled_from(KINDS),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    last_n=st.integers(1, 3),
    folds=st.just(4),
    fold=st.integers(0, 3),
    seed=st.integers(0, 9),
)
# Any split can divide these: three users, items and times at least.
enough = st.dictionaries(st.integers(0, 30), st.integers(3, 25), min_size=3, max_size=6)


def by_pair(split: pd.DataFrame) -> dict[tuple[Any, Any], str]:
    return {(row.user_id, row.item_id): row.split for row in split.itertuples()}


def test_the_latest_items_are_test_and_those_before_validation() -> None:
    pairs = pd.DataFrame({"user_id": 7, "item_id": range(10), "timestamp": range(10)})
    split = split_groups(pairs, validation_share=0.1, test_share=0.2)["split"].tolist()
    assert split == ["train"] * 7 + ["validation"] + ["test"] * 2


def test_three_items_give_one_to_each_part_and_two_stay_in_train() -> None:
    pairs = pd.DataFrame(
        {"user_id": ["a", "b", "a", "b", "a"], "item_id": [1, 1, 2, 2, 3], "timestamp": [3, 1, 2, 2, 1]}
    )
    split = split_groups(pairs, 0.1, 0.1)
    assert split["split"].tolist() == ["test", "train", "validation", "train", "train"]


@quick
@given(users, st.floats(0.01, 0.49), st.floats(0.01, 0.49), st.sampled_from(["time", "random"]))
def test_whoever_has_three_items_has_one_in_every_part(
    counts: dict[int, int], validation: float, test: float, by: Any
) -> None:
    split = split_groups(pairs_of(counts), validation, test, by=by)
    for user, rows in split.groupby("user_id"):
        expected = {"train", "validation", "test"} if counts[user] >= 3 else {"train"}
        assert set(rows["split"]) == expected


@quick
@given(users, st.integers(0, 2**32 - 1), st.sampled_from(["time", "random"]))
def test_the_order_and_labels_of_rows_change_nothing(counts: dict[int, int], seed: int, by: Any) -> None:
    pairs = pairs_of(counts)
    shuffled = pairs.sample(frac=1, random_state=seed).set_axis([0] * len(pairs))
    assert by_pair(split_groups(pairs, 0.1, 0.2, by=by)) == by_pair(split_groups(shuffled, 0.1, 0.2, by=by))


@quick
@given(users)
def test_users_are_split_alone_as_they_are_together(counts: dict[int, int]) -> None:
    pairs = pairs_of(counts)
    alone = pd.concat([split_groups(rows, 0.1, 0.2) for _, rows in pairs.groupby("user_id")])
    assert by_pair(alone) == by_pair(split_groups(pairs, 0.1, 0.2))


def test_ties_in_time_do_not_favour_low_ids() -> None:
    pairs = pd.DataFrame({"user_id": np.repeat(np.arange(300), 10), "item_id": np.tile(np.arange(10), 300)})
    split = split_groups(pairs.assign(timestamp=0), 0.1, 0.1)
    share = split[split["split"] == "test"].groupby("item_id").size() / 300
    assert share.between(0.04, 0.16).all()


def test_another_seed_breaks_ties_otherwise() -> None:
    pairs = pd.DataFrame({"user_id": 1, "item_id": range(50), "timestamp": 0})
    assert by_pair(split_groups(pairs, 0.2, 0.2, seed=1)) != by_pair(split_groups(pairs, 0.2, 0.2, seed=2))


@quick
@given(enough, HOW)
def test_every_row_comes_out_once_as_it_went_in(counts: dict[int, int], how: Split) -> None:
    pairs = pairs_of(counts).set_axis(range(100, 100 + sum(counts.values())))
    split = how(pairs)
    pd.testing.assert_frame_equal(split.drop(columns="split"), pairs)
    assert set(split["split"]) <= {"train", "validation", "test"}


@quick
@given(enough, HOW, st.integers(0, 2**32 - 1))
def test_no_split_depends_on_the_order_of_rows_or_on_the_type_of_ids(
    counts: dict[int, int], how: Split, seed: int
) -> None:
    pairs = pairs_of(counts)
    expected = by_pair(how(pairs))
    assert by_pair(how(pairs.sample(frac=1, random_state=seed))) == expected
    as_text = how(pairs.astype({"user_id": str, "item_id": str}))
    assert {(int(user), int(item)): part for (user, item), part in by_pair(as_text).items()} == expected


@quick
@given(enough, st.sampled_from(["cold-item", "cold-user"]), st.integers(0, 9))
def test_a_cold_key_is_in_one_part_only_and_every_part_has_one(counts: dict[int, int], kind: Any, seed: int) -> None:
    split = Split(kind, 0.1, 0.2, seed=seed)(pairs_of(counts))
    parts = split.groupby(splits.KEYS[kind])["split"].agg(set)
    assert all(len(found) == 1 for found in parts)
    assert set.union(*parts) == {"train", "validation", "test"}


@quick
@given(enough, st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_a_split_by_moment_leaves_no_earlier_row_in_a_later_part(
    counts: dict[int, int], validation: float, test: float
) -> None:
    times = Split("global-time", validation, test)(pairs_of(counts)).groupby("split")["timestamp"]
    assert times.max()["train"] < times.min()["validation"]
    assert times.max()["validation"] < times.min()["test"]


@quick
@given(users, st.integers(0, 9))
def test_each_row_is_test_in_one_fold_and_validation_in_the_one_before(counts: dict[int, int], seed: int) -> None:
    pairs = pairs_of(counts)
    folds = [Split("k-fold", folds=4, fold=fold, seed=seed)(pairs)["split"] for fold in range(4)]
    assert (sum((fold == "test").astype(int) for fold in folds) == 1).all()
    for fold in range(4):
        assert ((folds[fold] == "validation") == (folds[(fold + 1) % 4] == "test")).all()
        sizes = (folds[fold] == "test").groupby(pairs["user_id"]).sum()
        assert all(counts[user] // 4 <= size <= -(-counts[user] // 4) for user, size in sizes.items())


def test_folds_of_short_histories_are_of_about_equal_size() -> None:
    pairs = pd.DataFrame({"user_id": range(1000), "item_id": 1, "timestamp": 0})
    sizes = [(Split("k-fold", fold=fold)(pairs)["split"] == "test").sum() for fold in range(5)]
    assert all(150 < size < 250 for size in sizes)


def test_the_last_n_rows_are_test_and_the_n_before_them_validation() -> None:
    pairs = pd.DataFrame(
        {"user_id": ["a"] * 5 + ["b"] * 4, "item_id": range(9), "timestamp": [3, 1, 5, 2, 4, 1, 2, 3, 4]}
    )
    split = leave_last_out(pairs, 2, 2)["split"].tolist()
    # b has no more rows than would be held out.
    assert split == ["validation", "train", "test", "validation", "test", *["train"] * 4]


def test_of_rows_at_one_time_the_last_in_the_file_is_the_last_whatever_its_id_and_place_in_the_frame() -> None:
    rows = pd.DataFrame({"user_id": 1, "item_id": [9, 5, 7, 1], "timestamp": [4, 4, 4, 2], "row": [3, 12, 8, 20]})
    split = leave_last_out(rows, 1, 1, ties="row")
    assert split["split"].tolist() == ["train", "test", "validation", "train"]


def test_all_of_a_moment_go_to_one_part_and_the_cut_comes_as_near_to_the_shares_as_it_can() -> None:
    times = [1] * 5 + [2] * 2 + [3] * 2 + [4]
    pairs = pd.DataFrame({"user_id": range(10), "item_id": 1, "timestamp": times})
    split = Split("global-time", 0.2, 0.3)(pairs)["split"].tolist()
    assert split == ["train"] * 5 + ["validation"] * 2 + ["test"] * 3


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (Split("global-time"), "2 distinct times, and a split by time needs 3"),
        (Split("cold-item"), "2 keys to divide, and three parts need 3"),
        (Split("k-fold", folds=3, fold=3), "no fold 3 of 3"),
    ],
)
def test_too_little_to_divide_is_named(how: Split, sentence: str) -> None:
    pairs = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "timestamp": [1, 2]})
    with pytest.raises(DataError, match=sentence):
        how(pairs)


def test_the_settings_know_every_split_and_refuse_folds_that_are_not_there() -> None:
    assert get_args(config.SnapshotSettings.model_fields["split"].annotation) == KINDS
    with pytest.raises(SettingsError, match="fold 5 is none of 5 folds"):
        config.load(overrides=["snapshot.fold=5"], environment={})


@pytest.mark.parametrize("kind", KINDS)
def test_spark_splits_as_pandas_does(spark: Any, kind: Any) -> None:
    from avrec_spark.pipelines import splitting

    generator = np.random.default_rng(len(kind))
    pairs = pd.DataFrame({"user_id": generator.integers(0, 40, 900), "item_id": generator.zipf(1.4, 900) % 60})
    pairs = pairs.drop_duplicates().assign(timestamp=lambda rows: generator.integers(0, 50, len(rows)) / 4)
    for ids in (pairs, pairs.astype({"user_id": str, "item_id": str})):
        how = Split(kind, 0.15, 0.2, last_n=2, fold=3, seed=5)
        there = splitting.split(spark.createDataFrame(ids).repartition(3), how).toPandas()
        assert list(there.columns) == [*ids.columns, "split"]
        assert len(there) == len(ids)
        assert by_pair(there) == by_pair(how(ids))


def test_spark_splits_in_file_order_bit_for_bit_as_pandas_does(spark: Any) -> None:
    from avrec_spark.pipelines import splitting

    generator = np.random.default_rng(3)
    rows = pd.DataFrame({"user_id": generator.integers(0, 50, 800), "item_id": generator.integers(0, 30, 800)})
    rows = rows.assign(row=generator.permutation(800))
    frame = spark.createDataFrame(rows).repartition(3)
    for there, here in zip(splitting.stratified_split(frame), stratified_split(rows), strict=True):
        pd.testing.assert_frame_equal(there.toPandas().sort_values("row", ignore_index=True), here)
    with pytest.raises(DataError, match="row has 700 values from 100 to 799 for 700 rows"):
        splitting.stratified_split(spark.createDataFrame(rows[rows["row"] >= 100]))


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
