from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import DataError, SettingsError
from avrec_spark.evaluation import executors

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


def test_spark_agrees_with_numpy_on_many_users_in_many_tasks(spark: Any) -> None:
    random = np.random.default_rng(0)
    lists = pd.DataFrame({"user_id": np.repeat(np.arange(200), 10), "rank": np.tile(np.arange(1, 11), 200)})
    lists["item_id"] = np.concatenate([random.permutation(50)[:10] for _ in range(200)])
    truth = pd.DataFrame({"user_id": random.integers(0, 220, 900), "item_id": random.integers(0, 50, 900)})
    frames = (spark.createDataFrame(frame).repartition(7) for frame in (lists, truth))
    there, here = (
        executors.evaluate_spark(*frames, (5, 10), 50, 40),
        executors.evaluate_numpy(lists, truth, (5, 10), 50, 40),
    )
    for name, figure in here.items():
        assert there[name] == pytest.approx(figure), name


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
