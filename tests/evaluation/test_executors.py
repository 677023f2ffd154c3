from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from avrec_spark.errors import DataError, MissingColumnsError, SettingsError, UsageError
from avrec_spark.evaluation import executors, kernel
from avrec_spark.evaluation.catalogue import Catalogue

# Ann: both test items at ranks 1 and 3. Bob: one of three at rank 2. Cem has no list. Dee has no test item.
LISTS = pd.DataFrame(
    [
        ("ann", 1, 1), ("ann", 9, 2), ("ann", 2, 3),
        ("bob", 9, 1), ("bob", 3, 2),
        ("dee", 1, 1), ("dee", 7, 2),
    ],
    columns=["user_id", "item_id", "rank"],
)  # fmt: skip
TRUTH = pd.DataFrame(
    [("ann", 1), ("ann", 2), ("ann", 2), ("bob", 3), ("bob", 4), ("bob", 5), ("cem", 1)],
    columns=["user_id", "item_id"],
)
MEANS = {
    "precision@3": (2 / 3 + 1 / 3 + 0) / 3,
    "recall@3": (1 + 1 / 3 + 0) / 3,
    "map@3": ((1 + 2 / 3) / 2 + (1 / 2) / 3 + 0) / 3,
    "mrr@3": (1 + 1 / 2 + 0) / 3,
    "hit-rate@3": 2 / 3,
    "hit-rate@1": 1 / 3,
    "precision@1": 1 / 3,
    # Items 1, 9, 2 and 3 of ten; what Dee is shown does not count.
    "coverage@3": 4 / 10,
    "coverage@1": 2 / 10,
}


def means(figures: executors.Metrics) -> dict[str, float]:
    return {name: figures[name]["mean"] for name in MEANS}


def test_numpy_gives_the_means_over_users_with_test_items() -> None:
    assert means(executors.evaluate_numpy(LISTS, TRUTH, (1, 3), n_items=10)) == pytest.approx(MEANS)


def test_spark_gives_the_same_figures_and_intervals_as_numpy(spark: Any) -> None:
    there = executors.evaluate_spark(spark.createDataFrame(LISTS), spark.createDataFrame(TRUTH), (1, 3), 10, 50)
    here = executors.evaluate_numpy(LISTS, TRUTH, (1, 3), 10, 50)
    assert means(there) == pytest.approx(MEANS)
    assert there.keys() == here.keys()
    for name, figure in here.items():
        assert there[name] == pytest.approx(figure), name


def everything(seed: int, text: bool, users: int = 120) -> dict[str, Any]:
    """Random lists of unequal length, truth, histories, segments and a catalogue; ids are text, or of 64 bits."""
    random = np.random.default_rng(seed)

    def ids(positions: Any) -> Any:
        numbers = np.asarray(positions, np.int64)
        return np.array([f"id {n}" for n in numbers], object) if text else numbers + 2**62 + 1

    lengths = random.integers(0, 11, users)
    lists = pd.DataFrame({"user_id": np.repeat(np.arange(users), lengths)})
    lists["item_id"] = np.concatenate([random.permutation(50)[:n] for n in lengths])
    lists["rank"] = np.concatenate([np.arange(1, n + 1) for n in lengths])
    truth = pd.DataFrame({"user_id": random.integers(0, users + 20, 4 * users)})
    truth["item_id"] = random.integers(0, 55, len(truth))
    train = pd.DataFrame({"user_id": random.integers(20, users + 40, 6 * users)})
    train["item_id"] = random.integers(0, 45, len(train))
    for frame in (lists, truth, train):
        frame["user_id"], frame["item_id"] = ids(frame["user_id"]), ids(frame["item_id"])
    items = ids(np.arange(40))
    catalogue = Catalogue.from_frames(
        train=train,
        vectors=pd.DataFrame({"item_id": items, "vector": list(random.normal(size=(40, 4)))}),
        categories=pd.DataFrame({"item_id": items, "categories": [["a"], ["b"], ["a", "c"], []] * 10}),
        groups=pd.DataFrame({"item_id": items, "group": ["x", "y", "y", None] * 10}),
    )
    segments = pd.DataFrame({"user_id": ids(np.arange(10, users + 30)), "segment": "odd"})
    segments.loc[::2, "segment"] = "even"
    return {"lists": lists, "truth": truth, "histories": train, "segments": segments, "catalogue": catalogue}


def test_held_out_items_that_train_knows_and_does_not_know_are_told_apart() -> None:
    # Train knows 1 and 3. Ann: 1 at rank 1, 2 at rank 3. Bob: 3 at rank 2, 4 and 5 not at all. Cem has no list.
    catalogue = Catalogue.from_frames(items=[2, 9], train=pd.DataFrame({"user_id": ["x", "y"], "item_id": [1, 3]}))
    figures = executors.evaluate_numpy(LISTS, TRUTH, (3,), n_items=10, bootstrap=20, catalogue=catalogue)
    assert figures["recall@3/warm-items"]["mean"] == pytest.approx((1 + 1 + 0) / 3)
    assert figures["mrr@3/warm-items"]["mean"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Cem holds out nothing that is cold.
    assert figures["recall@3/cold-items"]["mean"] == pytest.approx((1 + 0) / 2)
    assert figures["mrr@3/cold-items"]["mean"] == pytest.approx((1 / 3 + 0) / 2)
    assert "novelty@3/cold-items" not in figures
    assert figures["recall@3"]["mean"] == pytest.approx(MEANS["recall@3"])


@pytest.mark.parametrize("known", [[1, 2, 3, 4, 5], [8]])
def test_held_out_items_of_one_kind_only_are_no_segment(known: list[int]) -> None:
    catalogue = Catalogue.from_frames(train=pd.DataFrame({"user_id": "x", "item_id": known}))
    figures = executors.evaluate_numpy(LISTS, TRUTH, (3,), n_items=10, catalogue=catalogue)
    assert not [name for name in figures if "/" in name]


def in_spark(spark: Any, given: dict[str, Any]) -> dict[str, Any]:
    frames = {name: part for name, part in given.items() if isinstance(part, pd.DataFrame)}
    return given | {name: spark.createDataFrame(part).repartition(7) for name, part in frames.items()}


@pytest.mark.parametrize("text", [True, False])
def test_spark_agrees_with_numpy_on_every_metric_in_many_tasks(spark: Any, text: bool) -> None:
    given, about = everything(int(text), text), {"ks": (5, 10, 60), "n_items": 60, "bootstrap": 40}
    here = executors.evaluate_numpy(**given, **about)
    there = executors.evaluate_spark(**in_spark(spark, given), **about)
    families = ("ndcg@5", "map-min@10", "gini@60", "entropy@5", "novelty@5", "popularity-lift@5", "serendipity@5")
    vectors = ("diversity@5", "unexpectedness@5", "miscalibration@10", "group-gini@5", "exposure@5/x")
    segments = ("ndcg@5/odd", "novelty@60/even", "ndcg@5/warm-items", "recall@10/cold-items")
    assert {*families, *vectors, *segments} <= here.keys()
    assert there.keys() == here.keys()
    for name, figure in here.items():
        assert there[name] == pytest.approx(figure, rel=1e-9, abs=1e-9), name


def test_figures_of_each_user_are_the_same_in_spark(spark: Any) -> None:
    given = everything(3, text=False)
    del given["segments"]
    here = executors.per_user_numpy(**given, ks=(5,)).sort_values("user_id", ignore_index=True)
    there = executors.per_user_spark(**in_spark(spark, given), ks=(5,)).toPandas()
    pd.testing.assert_frame_equal(there.sort_values("user_id", ignore_index=True), here)
    means = executors.evaluate_numpy(**given, ks=(5,), n_items=60, bootstrap=0)
    assert here["ndcg@5"].mean() == pytest.approx(means["ndcg@5"]["mean"])


@settings(deadline=None, max_examples=15)
@drawn(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 300))
def test_blocks_and_the_order_of_rows_change_nothing(seed: int, text: bool, rows: int) -> None:
    given, about = everything(seed, text, users=30), {"ks": (3, 10), "n_items": 60, "bootstrap": 5}
    whole = executors.evaluate_numpy(**given, **about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "BLOCK_ROWS", rows)
        shuffled = {name: part if name == "catalogue" else part.sample(frac=1) for name, part in given.items()}
        again = executors.evaluate_numpy(**shuffled, **about)
        streamed = streamed_like_spark(given, about)
    assert again.keys() == whole.keys() == streamed.keys()
    for name, figure in whole.items():
        assert again[name] == pytest.approx(figure, rel=1e-9, abs=1e-9), name
        assert streamed[name] == pytest.approx(figure, rel=1e-9, abs=1e-9), name


def streamed_like_spark(given: dict[str, Any], about: dict[str, Any]) -> executors.Metrics:
    """What two Spark tasks do with rows sorted by user in small batches, without Spark."""
    parts = [
        given["lists"],
        given["truth"].assign(rank=kernel.HELD_OUT),
        given["histories"].assign(rank=kernel.HISTORY),
        given["segments"].assign(rank=kernel.SEGMENT, item_id=given["lists"]["item_id"].iloc[0]),
    ]
    rows = pd.concat(parts).sort_values("user_id", ignore_index=True)[["user_id", "item_id", "rank", "segment"]]
    halves = rows["user_id"].map(hash) % 2
    evaluation = kernel.Evaluation(kernel.Plan(about["ks"], about["bootstrap"], given["catalogue"], True))
    for half in (0, 1):
        table = pa.Table.from_pandas(rows[halves == half], preserve_index=False)
        task = kernel.Evaluation(evaluation.plan)
        for block in executors._blocks_of_batches(table.to_batches(max_chunksize=11)):
            task.add(block)
        evaluation.add_part(task.sums, task.items.index.to_numpy()[: len(task.shown)], task.shown)
    return evaluation.finish(about["n_items"])


def test_users_may_come_part_by_part() -> None:
    given = everything(4, text=True)
    catalogue = given.pop("catalogue")
    whole = executors.evaluate_numpy(**given, catalogue=catalogue, ks=(5,), n_items=60)
    half = {name: part["user_id"].map(lambda user: len(user) % 2 == 0) for name, part in given.items()}
    parts = [{name: part[half[name] == side] for name, part in given.items()} for side in (True, False)]
    in_parts = executors.evaluate_parts(parts, (5,), 60, catalogue=catalogue)
    assert in_parts.keys() == whole.keys()
    for name, figure in whole.items():
        assert in_parts[name] == pytest.approx(figure, rel=1e-9, abs=1e-9), name


def test_a_task_holds_a_block_of_users_and_not_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "BLOCK_ROWS", 100)
    rows = pd.DataFrame({"user_id": np.repeat(np.arange(500), 10), "item_id": 1, "rank": 1})
    table = pa.Table.from_pandas(rows, preserve_index=False)
    blocks = list(executors._blocks_of_batches(table.to_batches(max_chunksize=30)))
    assert max(len(block.user) for block in blocks) <= 100 + 30
    users = np.concatenate([block.users for block in blocks])
    assert users.tolist() == list(range(500))


def test_a_segment_has_the_figures_of_its_users_alone() -> None:
    segments = pd.DataFrame({"user_id": ["ann", "bob", "cem"], "segment": ["old", "old", None]})
    figures = executors.evaluate_numpy(LISTS, TRUTH, (3,), 10, segments=segments)
    assert figures["recall@3/old"]["mean"] == pytest.approx((1 + 1 / 3) / 2)
    alone = executors.evaluate_numpy(LISTS, TRUTH[TRUTH["user_id"] != "cem"], (3,), 10)
    assert figures["ndcg@3/old"] == pytest.approx(alone["ndcg@3"])
    assert not any(name.endswith("/None") for name in figures)


def test_k_may_be_larger_than_the_catalogue() -> None:
    lists = pd.DataFrame({"user_id": 1, "item_id": [1, 2], "rank": [1, 2]})
    truth = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2]})
    figures = executors.evaluate_numpy(lists, truth, (100,), n_items=2)
    assert {name: figures[name]["mean"] for name in ("ndcg@100", "precision@100", "coverage@100", "gini@100")} == {
        "ndcg@100": 1.0,
        "precision@100": 0.02,
        "coverage@100": 1.0,
        "gini@100": 0.0,
    }


def test_one_user_and_one_item_are_enough() -> None:
    one = pd.DataFrame({"user_id": [1], "item_id": [1], "rank": [1]})
    figures = executors.evaluate_numpy(one, one, (1,), n_items=1, bootstrap=50)
    assert figures["ndcg@1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_no_list_at_all_is_a_figure_of_nothing() -> None:
    figures = executors.evaluate_numpy(LISTS.head(0), TRUTH, (3,), 10)
    assert {figures[name]["mean"] for name in ("ndcg@3", "coverage@3", "gini@3", "entropy@3")} == {0.0}


def test_a_held_out_pair_that_comes_twice_counts_once() -> None:
    twice = pd.concat([TRUTH, TRUTH])
    assert executors.evaluate_numpy(LISTS, twice, (3,), 10) == executors.evaluate_numpy(LISTS, TRUTH, (3,), 10)


def bad(**changes: Any) -> dict[str, Any]:
    return {"lists": LISTS, "truth": TRUTH, "ks": (3,), "n_items": 10} | changes


TWO_SEGMENTS = pd.DataFrame({"user_id": ["ann", "ann"], "segment": ["a", "b"]})
BAD = [
    (bad(lists=LISTS.assign(item_id=1)), DataError, "an item or a rank twice"),
    (bad(lists=LISTS.assign(rank=1)), DataError, "an item or a rank twice"),
    (bad(lists=LISTS.assign(rank=LISTS["rank"] - 1)), DataError, "ranks are below 1"),
    (bad(lists=LISTS.assign(rank=0.5)), DataError, "ranks are below 1, or no whole numbers"),
    (bad(lists=LISTS.assign(item_id=LISTS["item_id"].astype(str))), DataError, "item_id holds numbers in one input"),
    (bad(truth=TRUTH.assign(user_id=[1, 1, 1, 2, 2, 2, 3])), DataError, "user_id holds numbers in one input"),
    (bad(truth=TRUTH.assign(item_id=TRUTH["item_id"].where(TRUTH["item_id"] != 4))), DataError, "no item_id"),
    (bad(truth=TRUTH.assign(user_id=TRUTH["user_id"].replace({"bob": None}))), DataError, "no user_id"),
    (bad(n_items=3), DataError, "show 4 different items, and the catalogue is said to have 3"),
    (bad(segments=TWO_SEGMENTS), DataError, "more than one segment"),
    (bad(lists=LISTS.drop(columns="rank")), MissingColumnsError, "The frame lists has no column rank"),
    (bad(ks=()), UsageError, "The list lengths are none"),
]


@pytest.mark.parametrize(("given", "error", "sentence"), BAD)
def test_bad_input_stops_with_a_named_error(given: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        executors.evaluate_numpy(**given)


@pytest.mark.parametrize("number", [0, 2, 4, 6, 7, 8, 9])
def test_bad_input_stops_with_the_same_error_in_spark(spark: Any, number: int) -> None:
    given, error, sentence = BAD[number]
    frames = {
        # pandas' NaN in a column of integers is Spark's null.
        name: spark.createDataFrame(part.astype(object).where(part.notna(), None), SCHEMAS[name])
        if name in SCHEMAS and number == 6
        else spark.createDataFrame(part)
        for name, part in given.items()
        if isinstance(part, pd.DataFrame)
    }
    with pytest.raises(error, match=sentence):
        executors.evaluate_spark(**(given | frames))


SCHEMAS = {"truth": "user_id string, item_id bigint"}


def test_the_order_of_rows_changes_nothing() -> None:
    shuffled = executors.evaluate_numpy(LISTS.sample(frac=1, random_state=1), TRUTH.iloc[::-1], (1, 3), 10)
    for name, figure in executors.evaluate_numpy(LISTS, TRUTH, (1, 3), 10).items():
        assert shuffled[name] == pytest.approx(figure)


@pytest.mark.parametrize("name", ["numpy", "spark"])
def test_without_held_out_rows_there_is_no_figure(name: str, request: pytest.FixtureRequest) -> None:
    frames: list[Any] = [LISTS, TRUTH.head(0)]
    if name == "spark":
        spark = request.getfixturevalue("spark")
        frames = [spark.createDataFrame(LISTS), spark.createDataFrame([], "user_id string, item_id bigint")]
    with pytest.raises(DataError, match="no held-out interaction"):
        executors.create(name)(*frames, (1,), 10)


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no executor dask\. Choose numpy or spark"):
        executors.create("dask")
