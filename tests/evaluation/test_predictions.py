"""Errors of ratings and probabilities, by hand and on both executors."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.evaluation import predictions, rows


def labelled(n: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"user_id": [f"user {u}" for u in random.integers(0, 50, n)]})
    # Rounded, so that many scores are equal.
    frame["score"] = random.random(n).round(1)
    frame["label"] = (random.random(n) < 0.2 + 0.6 * frame["score"]).astype(int)
    frame["rating"], frame["weight"] = random.integers(1, 6, n).astype(float), random.random(n)
    return frame


def test_weights_count_and_an_unweighted_row_weighs_one() -> None:
    frame = pd.DataFrame({"rating": [1.0, 2.0], "score": [2.0, 4.0], "weight": [3.0, 1.0]})
    figures = predictions.ratings_numpy(frame, 0)
    assert figures["mae"]["mean"] == pytest.approx((3 * 1 + 1 * 2) / 4)
    assert figures["rmse"]["mean"] == pytest.approx(((3 * 1 + 1 * 4) / 4) ** 0.5)


def test_a_sure_and_wrong_prediction_has_a_finite_loss() -> None:
    figures = predictions.labels_numpy(pd.DataFrame({"label": [1, 0], "score": [0.0, 0.25]}), 0)
    assert figures["log-loss"]["mean"] == pytest.approx((-log(1e-15) - log(0.75)) / 2)
    assert figures["accuracy"]["mean"] == 0.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(pairs: list[tuple[bool, int]]) -> None:
    frame = pd.DataFrame(pairs, columns=["label", "score"]).astype({"label": int, "score": float})
    above, below = frame[frame["label"] == 1]["score"].to_numpy(), frame[frame["label"] == 0]["score"].to_numpy()
    figures = predictions.auc_numpy(frame)
    if not len(above) or not len(below):
        assert figures == {}
        return
    differences = above[:, None] - below[None, :]
    assert figures["auc"]["mean"] == pytest.approx((differences > 0).mean() + (differences == 0).mean() / 2)


def test_delongs_interval_is_that_of_the_placements() -> None:
    frame = labelled()
    above, below = frame[frame["label"] == 1]["score"].to_numpy(), frame[frame["label"] == 0]["score"].to_numpy()
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / len(above) + wins.mean(axis=0).var(ddof=1) / len(below))
    figure = predictions.auc_numpy(frame)["auc"]
    assert figure["high"] - figure["mean"] == pytest.approx(1.959964 * error, rel=1e-6)


def test_equal_scores_have_an_auc_of_a_half() -> None:
    assert predictions.auc_numpy(pd.DataFrame({"label": [0, 1, 1], "score": 0.3}))["auc"]["mean"] == 0.5


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictions.labels_numpy(labelled(), 20)
    without_users = predictions.labels_numpy(labelled().drop(columns="user_id"), 20)
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 7)
    for expected, frame in ((whole, labelled()), (without_users, labelled().drop(columns="user_id"))):
        for name, figure in predictions.labels_numpy(frame, 20).items():
            assert figure == pytest.approx(expected[name]), name


def test_the_interval_counts_users_and_not_rows() -> None:
    # Ten users whose hundred rows are all alike: the rows are no evidence of their own.
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"user_id": np.repeat(np.arange(10), 100), "rating": 0.0})
    frame["score"] = random.random(10)[frame["user_id"]]
    by_user = predictions.ratings_numpy(frame)["mae"]
    by_row = predictions.ratings_numpy(frame.drop(columns="user_id"))["mae"]
    assert by_user["high"] - by_user["low"] > 5 * (by_row["high"] - by_row["low"])


def test_spark_gives_the_same_figures(spark: Any) -> None:
    frame = labelled()
    there = spark.createDataFrame(frame).repartition(5)
    found = predictions.labels_spark(there, 20) | predictions.ratings_spark(there, 20)
    expected = predictions.labels_numpy(frame, 20) | predictions.ratings_numpy(frame, 20)
    assert found.keys() == expected.keys()
    for name, figure in expected.items():
        assert found[name] == pytest.approx(figure, rel=1e-9), name


ROW = {"label": [1, 0], "score": [0.5, 0.5], "rating": [1.0, 2.0], "weight": [1.0, 1.0]}
BAD = [
    ({"weight": [1.0, float("nan")]}, "column weight has values that cannot be, the first is nan"),
    ({"weight": [-1.0, 1.0]}, r"column weight has values that cannot be, the first is -1\.0. They must be 0 or more"),
    ({"score": [0.5, float("inf")]}, "column score"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD)
def test_impossible_values_stop_with_a_named_error(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        predictions.ratings_numpy(pd.DataFrame(ROW | change))


def test_impossible_values_stop_with_the_same_error_in_spark(spark: Any) -> None:
    with pytest.raises(DataError, match=BAD[1][1]):
        predictions.ratings_spark(spark.createDataFrame(pd.DataFrame(ROW | BAD[1][0])))


def test_labels_and_probabilities_have_their_ranges() -> None:
    with pytest.raises(DataError, match="column label"):
        predictions.labels_numpy(pd.DataFrame(ROW | {"label": [2, 0]}))
    with pytest.raises(DataError, match="neither 0 nor 1"):
        predictions.labels_numpy(pd.DataFrame(ROW | {"label": [0.5, 0]}))
    with pytest.raises(DataError, match="column score .* from 0 to 1"):
        predictions.labels_numpy(pd.DataFrame(ROW | {"score": [1.5, 0]}))


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(DataError, match="no row to evaluate on"):
        predictions.ratings_numpy(pd.DataFrame(ROW).head(0))
    with pytest.raises(MissingColumnsError, match="no column rating"):
        predictions.ratings_numpy(pd.DataFrame({"score": [1.0]}))
