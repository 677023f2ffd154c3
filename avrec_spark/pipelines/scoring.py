"""A fitted recommender over many users in Spark: broadcast the model, give each task a block of users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from avrec_spark import columns as c
from avrec_spark.models.base import Recommender

EXCLUDE = "exclude"


def recommend_in_spark(
    recommender: Recommender,
    users: DataFrame,
    k: int,
    tasks: int,
    with_reasons: bool = False,
    candidates: NDArray[Any] | None = None,
) -> DataFrame:
    """Top k for each row of `users`: user_id, item_id, rank, score, because.

    `users` has the column user_id and may have `EXCLUDE`, an array of items that the user must not get. `because` is
    the item of the user's history that speaks most for the recommendation; null for users without one, and everywhere
    unless `with_reasons`. `candidates` are the ids of the items to choose from; None: all.
    """
    model = users.sparkSession.sparkContext.broadcast(recommender)
    user_type = dict(users.dtypes)[c.USER_ID]
    item_type = "bigint" if recommender.items.ids.dtype.kind == "i" else "string"
    names = [*c.RECOMMENDATIONS, c.BECAUSE]

    def kernel(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        for batch in batches:
            exclude = batch[EXCLUDE].tolist() if EXCLUDE in batch else None
            lists = model.value.recommend(batch[c.USER_ID].to_numpy(), k, candidates=candidates, exclude=exclude)
            pairs = lists[c.USER_ID].to_numpy(), lists[c.ITEM_ID].to_numpy()
            lists[c.BECAUSE] = model.value.because(*pairs) if with_reasons else None
            yield lists[names]

    schema = (
        f"{c.USER_ID} {user_type}, {c.ITEM_ID} {item_type}, {c.RANK} int, {c.SCORE} double, {c.BECAUSE} {item_type}"
    )
    return users.repartition(tasks).mapInPandas(kernel, schema)
