"""A fitted recommender over many users in Spark: broadcast the model, give each task a block of users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from avrec_spark import columns as c
from avrec_spark.models.base import Recommender


def recommend_in_spark(
    recommender: Recommender,
    users: DataFrame,
    k: int,
    tasks: int,
    with_reasons: bool = False,
    candidates: NDArray[Any] | None = None,
) -> DataFrame:
    """Top k for each row of `users` (one column, user_id): user_id, item_id, rank, score, because.

    `because` is the item of the user's history that speaks most for the recommendation; null for users without one,
    and everywhere unless `with_reasons`. `candidates` are the ids of the items to choose from; None: all.
    """
    model = users.sparkSession.sparkContext.broadcast(recommender)
    user_type = dict(users.dtypes)[c.USER_ID]
    item_type = "bigint" if recommender.items.ids.dtype.kind == "i" else "string"
    names = [*c.RECOMMENDATIONS, c.BECAUSE]

    def kernel(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        for batch in batches:
            lists = model.value.recommend(batch[c.USER_ID].to_numpy(), k, candidates=candidates)
            pairs = lists[c.USER_ID].to_numpy(), lists[c.ITEM_ID].to_numpy()
            lists[c.BECAUSE] = model.value.because(*pairs) if with_reasons else None
            yield lists[names]

    schema = (
        f"{c.USER_ID} {user_type}, {c.ITEM_ID} {item_type}, {c.RANK} int, {c.SCORE} double, {c.BECAUSE} {item_type}"
    )
    return users.select(c.USER_ID).repartition(tasks).mapInPandas(kernel, schema)
