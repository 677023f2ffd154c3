"""recommend: the champion's top k for every user → gold.recommendations, with a reason for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.errors import DataError
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.preferences import preferences
from avrec_spark.pipelines.scoring import recommend_in_spark
from avrec_spark.recommend.reasons import POPULAR


def run(context: Context) -> Counts:
    settings = context.settings
    champion = context.tracking.champion(settings.promote.registered_model)
    if champion is None:
        raise DataError(
            f"The model {settings.promote.registered_model} has no champion yet.",
            "Run the jobs evaluate and promote first.",
        )
    recommender = Recommender.load(context.tracking.download(champion.source) / "artifacts" / "model")
    interactions = context.lakehouse.read(tables.INTERACTIONS)
    users = interactions.select(c.USER_ID).distinct().persist()
    count = users.count()
    lists = _lists(context, recommender, users, preferences(interactions), count)
    version = f"{champion.tags.get('avrec.model', '')}/{champion.version}"
    rows = lists.withColumns({c.MODEL_VERSION: F.lit(version), c.GENERATED_AT: F.current_timestamp()})
    context.lakehouse.replace(tables.RECOMMENDATIONS, rows)
    written = context.lakehouse.read(tables.RECOMMENDATIONS)
    return {
        "users": count,
        "rows_out": written.count(),
        "fallback_users": written.where(F.array_contains(c.REASONS, POPULAR)).select(c.USER_ID).distinct().count(),
    }


def _lists(context: Context, recommender: Recommender, users: DataFrame, seen: DataFrame, count: int) -> DataFrame:
    """The k best unseen items a user.

    The model removes what it was trained on; validation and test items are seen as well, so that many more are asked
    for as any user has of them, and the seen ones are dropped here.
    """
    k = context.settings.recommend.k
    slots = context.spark.sparkContext.defaultParallelism
    tasks = max(slots, -(-count // context.settings.recommend.users_per_task))
    most = seen.groupBy(c.USER_ID).count().agg(F.max("count")).first()
    extra = int(most[0]) if most is not None and most[0] is not None else 0
    lists = recommend_in_spark(recommender, users, k + extra, tasks, True, _servable(context))
    unseen = lists.join(seen.select(c.USER_ID, c.ITEM_ID), [c.USER_ID, c.ITEM_ID], "left_anti")
    ranked = unseen.withColumn(c.RANK, F.expr(f"row_number() OVER (PARTITION BY {c.USER_ID} ORDER BY {c.RANK})"))
    titles = context.lakehouse.read_or_empty(tables.ITEMS).select(F.col(c.ITEM_ID).alias(c.BECAUSE), c.TITLE)
    ranked = ranked.where(F.col(c.RANK) <= k).join(F.broadcast(titles), c.BECAUSE, "left")
    name = F.coalesce(F.col(c.TITLE), F.col(c.BECAUSE).cast("string"))
    reason = F.when(F.col(c.BECAUSE).isNull(), POPULAR).otherwise(F.concat(F.lit("like "), name))
    return ranked.withColumn(c.REASONS, F.array(reason))


def _servable(context: Context) -> NDArray[Any] | None:
    """Ids of the items that can be shown: still in the catalogue, and decodable; None where there is no catalogue."""
    if not context.lakehouse.exists(tables.MEDIA):
        return None
    present = context.lakehouse.read(tables.CATALOG).where(F.col(c.STATUS) == tables.PRESENT)
    usable = context.lakehouse.read(tables.MEDIA).where(F.col(c.STATUS).isin(*tables.USABLE))
    ids = present.join(usable.select(c.ITEM_ID), c.ITEM_ID, "left_semi").select(c.ITEM_ID)
    return np.asarray(ids.toPandas()[c.ITEM_ID])


JOB = Job(
    name="recommend",
    run=run,
    sections=("recommend", "promote"),
    reads=(tables.INTERACTIONS, tables.METRICS, tables.CATALOG, tables.MEDIA),
)
