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
from avrec_spark.pipelines.scoring import EXCLUDE, recommend_in_spark
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

    The model leaves out what it was trained on; what was held out from it has been seen as well.
    """
    settings = context.settings.recommend
    slots = context.spark.sparkContext.defaultParallelism
    tasks = max(slots, -(-count // settings.users_per_task))
    had = seen.groupBy(c.USER_ID).agg(F.collect_set(c.ITEM_ID).alias(EXCLUDE))
    asking = users.join(had, c.USER_ID, "left")
    lists = recommend_in_spark(recommender, asking, settings.k, tasks, True, _servable(context))
    titles = context.lakehouse.read_or_empty(tables.ITEMS).select(F.col(c.ITEM_ID).alias(c.BECAUSE), c.TITLE)
    titled = lists.join(F.broadcast(titles), c.BECAUSE, "left")
    name = F.coalesce(F.col(c.TITLE), F.col(c.BECAUSE).cast("string"))
    reason = F.when(F.col(c.BECAUSE).isNull(), POPULAR).otherwise(F.concat(F.lit("like "), name))
    return titled.withColumn(c.REASONS, F.array(reason))


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
