"""What a user likes, from what the user did."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c


def preferences(interactions: DataFrame) -> DataFrame:
    """One row a user and item that has a preference: the summed weight and the latest time."""
    return (
        interactions.where(F.col(c.WEIGHT) > 0)
        .groupBy(c.USER_ID, c.ITEM_ID)
        .agg(F.sum(c.WEIGHT).alias(c.WEIGHT), F.max(c.TIMESTAMP).alias(c.TIMESTAMP))
    )
