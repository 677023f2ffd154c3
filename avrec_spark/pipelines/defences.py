"""The defences of avrec_spark.events.defences, shared out: a call of a kernel gets many whole users, or items.

A call for each would cost more than the work.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings
from avrec_spark.events import floods, rings
from avrec_spark.events.defences import judge_users
from avrec_spark.events.types import IMPRESSION

VERDICT = "verdict"
_ROWS_A_GROUP = 500_000


def judge(rows: DataFrame, settings: DefenceSettings, slots: int) -> tuple[DataFrame, list[DataFrame]]:
    """(all rows with the column verdict, a reason or null, as defences.defend says; what to unpersist after its use).

    `rows` are events with user_id, item_id, event_id, event_type, timestamp, address, opinion and reason; those that
    have a reason already do not count.
    """
    acts = rows.where(F.col(c.REASON).isNull() & (F.col(c.EVENT_TYPE) != IMPRESSION))
    acts = acts.select(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.ADDRESS, c.OPINION)
    groups = max(slots, acts.count() // _ROWS_A_GROUP)
    users = _judge_users(acts, settings, groups).persist()
    people = users.where(F.col(c.REASON).isNull())
    acts = acts.join(people.select(c.USER_ID, floods.FIRST_SEEN), c.USER_ID)
    on_items, on_accounts = _judge_crowds(acts, _arrivals(users), settings, groups)
    verdicts = on_items.where(F.col(c.EVENT_ID).isNotNull()).select(on_accounts.columns).union(on_accounts)
    verdicts = verdicts.union(_judge_rings(acts, people, settings, groups)).persist()
    first, on_account = F.min(c.REASON), F.col(c.EVENT_ID).isNull()
    bots = users.where(F.col(c.REASON).isNotNull()).select(c.USER_ID, F.col(c.REASON).alias("bot"))
    accounts = verdicts.where(on_account).groupBy(c.USER_ID).agg(first.alias("account"))
    events = verdicts.where(~on_account).groupBy(c.EVENT_ID).agg(first.alias("event"))
    judged = rows.join(bots, c.USER_ID, "left").join(accounts, c.USER_ID, "left").join(events, c.EVENT_ID, "left")
    judged = judged.withColumn(VERDICT, F.coalesce("bot", "account", "event")).drop("bot", "account", "event")
    return judged, [users, on_items, verdicts]


def _judge_users(acts: DataFrame, settings: DefenceSettings, groups: int) -> DataFrame:
    counts = ", ".join(f"{name} bigint" for name in floods.COUNTS)
    schema = f"{_user_id(acts)}, {floods.FIRST_SEEN} timestamp, {counts}, {rings.BANDS} array<bigint>"
    acts = acts.drop(c.ADDRESS, c.EVENT_ID)
    return _by(acts, c.USER_ID, groups, lambda some: judge_users(some, settings), f"{schema}, {c.REASON} string")


def _arrivals(users: DataFrame) -> pd.DataFrame:
    days = users.groupBy(F.date_trunc("day", floods.FIRST_SEEN).alias(floods.DAY))
    return days.agg(
        F.count("*").alias(floods.NEWCOMERS), *[F.sum(name).alias(name) for name in floods.COUNTS]
    ).toPandas()


def _judge_crowds(
    acts: DataFrame, arrived: pd.DataFrame, settings: DefenceSettings, groups: int
) -> tuple[DataFrame, DataFrame]:
    """(verdicts of judge_items, persisted; verdicts of judge_addresses, and those of settle)."""

    def judge_items(some: pd.DataFrame) -> pd.DataFrame:
        return floods.judge_items(some, arrived, settings)

    def judge_addresses(some: pd.DataFrame) -> pd.DataFrame:
        return floods.judge_addresses(some, arrived, settings)

    item_id = f"{c.ITEM_ID} {dict(acts.dtypes)[c.ITEM_ID]}"
    schema = f"{c.EVENT_ID} string, {_user_id(acts)}, {item_id}, {floods.ODDS} double, {c.REASON} string"
    on_items = _by(acts.drop(c.ADDRESS), c.ITEM_ID, groups, judge_items, schema).persist()
    # Crowds bear on one another, and are few: one call gets all of them.
    crowds = on_items.where(F.col(c.EVENT_ID).isNull()).groupBy(F.lit(0)).applyInPandas(floods.settle, _verdict(acts))
    at_addresses = acts.where(F.col(c.ADDRESS).isNotNull())
    return on_items, crowds.union(_by(at_addresses, c.ADDRESS, groups, judge_addresses, _verdict(acts)))


def _judge_rings(acts: DataFrame, people: DataFrame, settings: DefenceSettings, groups: int) -> DataFrame:
    bands = people.select(c.USER_ID, F.explode(rings.BANDS).alias(rings.BAND))
    sizes = bands.groupBy(rings.BAND).agg(F.count("*").alias("size"))
    bands = bands.join(sizes.where(F.col("size") >= settings.ring_users).drop("size"), rings.BAND)
    # Counting costs a pass over the events, which without a crowded band nobody needs.
    n_items = 1 if bands.isEmpty() else acts.select(c.ITEM_ID).distinct().count()
    told = acts.where(F.col(c.OPINION) != 0).select(c.USER_ID, c.ITEM_ID, c.OPINION).distinct().join(bands, c.USER_ID)
    return _by(told, rings.BAND, groups, lambda some: rings.judge_rings(some, n_items, settings), _verdict(acts))


def _by(
    frame: DataFrame, name: str, groups: int, kernel: Callable[[pd.DataFrame], pd.DataFrame], schema: str
) -> DataFrame:
    return frame.groupBy(F.pmod(F.xxhash64(name), F.lit(groups))).applyInPandas(kernel, schema)


def _verdict(acts: DataFrame) -> str:
    return f"{c.EVENT_ID} string, {_user_id(acts)}, {c.REASON} string"


def _user_id(acts: DataFrame) -> str:
    return f"{c.USER_ID} {dict(acts.dtypes)[c.USER_ID]}"
