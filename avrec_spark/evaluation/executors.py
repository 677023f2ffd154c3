"""Two ways to run the metric kernel: in this process on pandas, and in Spark; the figures are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.errors import DataError, SettingsError
from avrec_spark.evaluation import metrics
from avrec_spark.evaluation.metrics import Sums

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Metrics = dict[str, dict[str, float]]


def create(name: str) -> Callable[..., Metrics]:
    """`evaluate_numpy` or `evaluate_spark` by name."""
    executors: dict[str, Callable[..., Metrics]] = {"numpy": evaluate_numpy, "spark": evaluate_spark}
    if name not in executors:
        raise SettingsError(f"There is no executor {name}.", "Choose numpy or spark.")
    return executors[name]


def evaluate_numpy(
    lists: pd.DataFrame, truth: pd.DataFrame, ks: tuple[int, ...], n_items: int, bootstrap: int = 200
) -> Metrics:
    """Metrics of ranked lists (user_id, item_id, rank) against held-out pairs (user_id, item_id).

    Raises `DataError` without held-out pairs.

    >>> lists = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> truth = pd.DataFrame({"user_id": [1], "item_id": [8]})
    >>> figures = evaluate_numpy(lists, truth, (1, 2), n_items=4)
    >>> figures["mrr@2"]["mean"], figures["coverage@1"]["mean"], figures["coverage@2"]["mean"]
    (0.5, 0.25, 0.5)
    """
    if len(truth) == 0:
        raise _nothing()
    users, hits, relevant = metrics.hit_matrix(lists, truth, c.USER_ID, c.ITEM_ID, c.RANK, max(ks))
    sums = metrics.summarise(users, hits, relevant, ks, bootstrap)
    lists = lists[lists[c.USER_ID].isin(users)]
    covered = {k: lists.loc[lists[c.RANK] <= k, c.ITEM_ID].nunique() / n_items for k in ks}
    return metrics.finish(sums, ks, covered)


def evaluate_spark(
    lists: DataFrame, truth: DataFrame, ks: tuple[int, ...], n_items: int, bootstrap: int = 200
) -> Metrics:
    """The same from Spark frames: whole users in each task, only sums travel to the driver."""
    from pyspark.sql import functions as F

    pairs = truth.select(c.USER_ID, c.ITEM_ID).distinct()
    users = pairs.select(c.USER_ID).distinct()
    # Read twice, and often computed by a model.
    kept = lists.select(c.USER_ID, c.ITEM_ID, c.RANK).join(users, c.USER_ID, "left_semi").persist()
    try:
        # Rank 0 marks a held-out pair, so that one shuffle brings a user's list and truth together.
        together = kept.unionByName(pairs.withColumn(c.RANK, F.lit(0))).repartition(c.USER_ID)
        shares = together.mapInPandas(_kernel(ks, bootstrap), "users bigint, sums binary").collect()
        distinct = [F.countDistinct(F.when(F.col(c.RANK) <= k, F.col(c.ITEM_ID))).alias(str(k)) for k in ks]
        covered = kept.agg(*distinct).collect()[0]
    finally:
        kept.unpersist()
    if not shares:
        raise _nothing()
    sums = reduce(Sums.__add__, (_unpack(share["users"], share["sums"], ks, bootstrap) for share in shares))
    return metrics.finish(sums, ks, {k: covered[str(k)] / n_items for k in ks})


def _kernel(ks: tuple[int, ...], bootstrap: int) -> Callable[[Iterable[pd.DataFrame]], Iterable[pd.DataFrame]]:
    def sums_of_a_task(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        # A user's rows may come in several batches; a task's share of the users is held at once.
        rows = pd.concat([batch for batch in batches if len(batch)] or [pd.DataFrame(columns=[c.RANK])])
        if len(rows) == 0:
            return
        lists, truth = rows[rows[c.RANK] > 0], rows[rows[c.RANK] == 0]
        users, hits, relevant = metrics.hit_matrix(lists, truth, c.USER_ID, c.ITEM_ID, c.RANK, max(ks))
        sums = metrics.summarise(users, hits, relevant, ks, bootstrap)
        packed = np.concatenate([sums.total, sums.resampled_users, sums.resampled.ravel()])
        yield pd.DataFrame({"users": [sums.users], "sums": [packed.tobytes()]})

    return sums_of_a_task


def _unpack(users: int, packed: bytes, ks: tuple[int, ...], bootstrap: int) -> Sums:
    values: np.ndarray[Any, np.dtype[np.float64]] = np.frombuffer(packed)
    width = len(metrics.names(ks))
    total, resampled_users, resampled = np.split(values, [width, width + bootstrap])
    return Sums(users, total, resampled.reshape(bootstrap, width), resampled_users)


def _nothing() -> DataError:
    return DataError("There is no held-out interaction to evaluate on.", "Check the split: every part needs rows.")
