"""What the models of a snapshot are evaluated on: its held-out pairs, and what is known of their users and items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import TEST, TRAIN, VALIDATION
from avrec_spark.evaluation.catalogue import Catalogue, side_by_side
from avrec_spark.evaluation.segments import HEAVY, LIGHT, NEW, by_history
from avrec_spark.pipelines.job import Context

# Lists and histories of some hundred megabytes; below that, Spark's tasks cost more than their work.
_ROWS_ON_DRIVER = 5_000_000
# Of which figures are compared pair by pair, on the driver: of more, so many are drawn by a hash of their id.
_USERS_COMPARED = 100_000
_LENGTH = "length"


@dataclass(frozen=True)
class HeldOut:
    """Frames are of pandas where the driver measures, else of Spark and kept for all models.

    `truths` are the held-out pairs by part, `compared` those of test whose users are compared pair by pair, `users` all
    that need a list (of Spark either way). `given` is what executors take beside them: catalogue, histories, segments.
    """

    truths: Mapping[str, Any]
    compared: Any
    users: DataFrame
    given: Mapping[str, Any]
    on_driver: bool

    def forget(self) -> None:
        for frame in (*self.truths.values(), self.users, *self.given.values()):
            if isinstance(frame, DataFrame):
                frame.unpersist()


def read(context: Context, snapshot_id: str) -> HeldOut:
    """Of one row of ops.snapshots. A pair of user and item is in a snapshot once."""
    settings = context.settings.evaluate
    row = context.lakehouse.read(tables.SNAPSHOTS).where(F.col(c.SNAPSHOT_ID) == snapshot_id).first()
    assert row is not None
    path, users = row["path"], pd.read_parquet(f"{row['path']}/users")
    rows = len(users) * max(settings.ks) + row["rows"][TRAIN]
    if settings.executor == "numpy" or (settings.executor == "auto" and rows <= _ROWS_ON_DRIVER):
        return _on_driver(context, path, users)
    return _in_spark(context, path)


def _on_driver(context: Context, path: str, users: pd.DataFrame) -> HeldOut:
    items = pd.read_parquet(f"{path}/items")

    def pairs(part: str) -> pd.DataFrame:
        indexed = pd.read_parquet(f"{path}/{part}")
        return indexed.merge(users, on=c.USER_INDEX).merge(items, on=c.ITEM_INDEX)[[c.USER_ID, c.ITEM_ID]]

    train, truths = pairs(TRAIN), {part: pairs(part) for part in (VALIDATION, TEST)}
    asking = pd.concat(truths.values())[[c.USER_ID]].drop_duplicates()
    lengths = train[c.USER_ID].value_counts()
    given = {
        "catalogue": _catalogue(context, path, train[c.ITEM_ID].value_counts(), len(lengths)),
        "histories": train,
        "segments": by_history(asking[c.USER_ID], lengths),
    }
    return HeldOut(truths, truths[TEST], context.spark.createDataFrame(asking), given, on_driver=True)


def _in_spark(context: Context, path: str) -> HeldOut:
    read_parquet = context.spark.read.parquet
    users, items = (F.broadcast(read_parquet(f"{path}/{name}")) for name in ("users", "items"))

    def pairs(part: str) -> DataFrame:
        indexed = read_parquet(f"{path}/{part}")
        return indexed.join(users, c.USER_INDEX).join(items, c.ITEM_INDEX).select(c.USER_ID, c.ITEM_ID).persist()

    train, truths = pairs(TRAIN), {part: pairs(part) for part in (VALIDATION, TEST)}
    asking = truths[VALIDATION].union(truths[TEST]).select(c.USER_ID).distinct().persist()
    lengths = train.groupBy(c.USER_ID).agg(F.count("*").alias(_LENGTH))
    known = lengths.agg(F.count("*"), F.median(_LENGTH)).first()
    assert known is not None
    n_users, median = known
    # As `by_history`.
    length = F.col(_LENGTH)
    segment = F.when(length.isNull(), NEW).when(length <= F.lit(median), LIGHT).otherwise(HEAVY).alias(c.SEGMENT)
    counts = train.groupBy(c.ITEM_ID).agg(F.count("*").alias(_LENGTH)).toPandas().set_index(c.ITEM_ID)[_LENGTH]
    given = {
        "catalogue": _catalogue(context, path, counts, n_users),
        "histories": train,
        "segments": asking.join(lengths, c.USER_ID, "left").select(c.USER_ID, segment).persist(),
    }
    shares = max(-(-truths[TEST].select(c.USER_ID).distinct().count() // _USERS_COMPARED), 1)
    compared = truths[TEST].where(F.pmod(F.xxhash64(c.USER_ID), F.lit(shares)) == 0)
    return HeldOut(truths, compared, asking, given, on_driver=False)


def _catalogue(context: Context, path: str, train_users: pd.Series[Any], n_users: int) -> Catalogue:
    """Every item of the snapshot: train users, vectors of all modalities, tags as categories, channels as groups.

    The driver holds what is known of the items, as it does to train on them.
    """
    items = pd.read_parquet(f"{path}/items")
    rows = context.lakehouse.read_or_empty(tables.ITEMS).select(c.ITEM_ID, c.TAGS, c.CHANNEL).toPandas()
    about = rows[rows[c.ITEM_ID].isin(items[c.ITEM_ID])]
    tagged = about[about[c.TAGS].map(lambda tags: tags is not None and len(tags) > 0)]
    grouped = about[about[c.CHANNEL].notna()]
    features = {
        folder.name: pd.read_parquet(folder).merge(items, on=c.ITEM_INDEX)
        for folder in sorted(Path(path, "features").glob("*"))
    }
    catalogue = Catalogue.from_frames(
        items=items[c.ITEM_ID],
        vectors=side_by_side(features),
        categories=tagged.rename(columns={c.TAGS: c.CATEGORIES}) if len(tagged) else None,
        groups=grouped.rename(columns={c.CHANNEL: c.GROUP}) if len(grouped) else None,
    )
    counts = train_users.reindex(catalogue.ids, fill_value=0).to_numpy("int64")
    return replace(catalogue, train_users=counts, n_users=n_users)
