"""Who got what: some users with what they did and were recommended, and some new items with whom they went to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.pipelines.neighbours import FUSED
from avrec_spark.pipelines.report_clips import NEIGHBOURS, Clips, Section, Tables
from avrec_spark.recommend.reasons import POPULAR
from avrec_spark.report.data import NewItem, NewItems, Reason, Shown, UserStory

_SHOWN_ITEMS = 6
_NEW_ITEMS, _REASONS = 4, 3
_ITEMS, _USERS, _TOUCHED = "items", "users", "touched"


def recommendations(of: Tables) -> DataFrame:
    lists = of.rows(tables.RECOMMENDATIONS)
    # One that an earlier version has written does not say it.
    return lists if c.BECAUSE in lists.columns else lists.withColumn(c.BECAUSE, F.lit(None))


# -- users -------------------------------------------------------------------------------------------------------------


def stories(of: Tables, count: int) -> Section[list[UserStory]]:
    """One of the fallback, the others at random but always the same."""
    lists = recommendations(of)
    users = lists.groupBy(c.USER_ID).agg(F.max(F.array_contains(c.REASONS, POPULAR)).alias("fallback"))
    order = F.expr(f"row_number() OVER (PARTITION BY fallback ORDER BY xxhash64({c.USER_ID}))")
    ranked = users.withColumn("order", order)
    chosen = ranked.orderBy("fallback", "order").where("NOT fallback OR order = 1")
    warm = [row[0] for row in chosen.where("NOT fallback").limit(max(count - 1, 0)).collect()]
    cold = [row[0] for row in chosen.where("fallback").limit(min(count, 1)).collect()]
    mine = F.col(c.USER_ID).isin(warm + cold)
    history = _grouped(c.USER_ID, _history(of.rows(tables.INTERACTIONS).where(mine & (F.col(c.WEIGHT) > 0))))
    recommended = _grouped(c.USER_ID, lists.where(mine & (F.col(c.RANK) <= _SHOWN_ITEMS)).orderBy(c.RANK))
    rows = [row for part in (history, recommended) for some in part.values() for row in some]
    return Section.of(
        lambda known: [
            _story(user, history.get(user, []), recommended.get(user, []), known) for user in (*warm, *cold)
        ],
        (row[c.ITEM_ID] for row in rows),
        (row[c.BECAUSE] for some in recommended.values() for row in some),
    )


def _history(interactions: DataFrame) -> DataFrame:
    """The latest items of each user, latest first, with what the user did, and of how many they are."""
    items = interactions.groupBy(c.USER_ID, c.ITEM_ID).agg(
        F.array_sort(F.collect_set(c.EVENT_TYPE)).alias(c.EVENT_TYPE), F.max(c.TIMESTAMP).alias(c.TIMESTAMP)
    )
    latest = f"row_number() OVER (PARTITION BY {c.USER_ID} ORDER BY {c.TIMESTAMP} DESC, {c.ITEM_ID})"
    counted = items.withColumns({_ITEMS: F.expr(f"count(*) OVER (PARTITION BY {c.USER_ID})"), c.RANK: F.expr(latest)})
    return counted.where(F.col(c.RANK) <= _SHOWN_ITEMS).orderBy(c.RANK)


def _story(user: Any, history: Sequence[Row], recommended: Sequence[Row], known: Clips) -> UserStory:
    return UserStory(
        user_id=str(user),
        history=[
            Shown(known[row[c.ITEM_ID]], f"{', '.join(row[c.EVENT_TYPE])} · {row[c.TIMESTAMP]:%d %b %Y}")
            for row in history
        ],
        recommendations=[Shown(known[row[c.ITEM_ID]], _why(row, known), row[c.SCORE]) for row in recommended],
        fallback=any(POPULAR in (row[c.REASONS] or ()) for row in recommended),
        history_items=history[0][_ITEMS] if history else 0,
    )


def _why(row: Row, known: Clips) -> str:
    because = known.get(row[c.BECAUSE])
    return f"because of {because.name}" if because else "; ".join(row[c.REASONS] or ())


# -- new items ---------------------------------------------------------------------------------------------------------


def new_items(of: Tables) -> Section[NewItems]:
    """The recommended items of which least is known, those first that nobody has touched."""
    lists = recommendations(of)
    touched = of.touched().withColumnRenamed(_USERS, _TOUCHED)
    counted = lists.groupBy(c.ITEM_ID).agg(F.countDistinct(c.USER_ID).alias(_USERS))
    counted = counted.join(touched, c.ITEM_ID, "left").fillna(0, [_TOUCHED])
    order = [F.col(_TOUCHED), F.desc(_USERS), F.xxhash64(c.ITEM_ID)]
    chosen = counted.orderBy(*order).limit(_NEW_ITEMS).collect()
    if not chosen:
        return Section.of(lambda known: NewItems())
    ids = [row[c.ITEM_ID] for row in chosen]
    # One user a reason, and the best places first.
    place = f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY {c.RANK}, {c.SCORE} DESC, xxhash64({c.USER_ID}))"
    got = lists.where(F.col(c.ITEM_ID).isin(ids)).withColumn("place", F.expr(place))
    reasons = _grouped(c.ITEM_ID, got.where(F.col("place") <= _REASONS).orderBy("place"))
    near = _grouped(c.ITEM_ID, _near(of, ids))
    untouched = _showable(of).join(touched, c.ITEM_ID, "left_anti").count()
    recommended = counted.where(F.col(_TOUCHED) == 0).count()
    return Section.of(
        lambda known: NewItems(
            untouched,
            recommended,
            [_new_item(row, reasons.get(row[c.ITEM_ID], []), near.get(row[c.ITEM_ID], []), known) for row in chosen],
        ),
        ids,
        (row[c.BECAUSE] for some in reasons.values() for row in some),
        (row[c.NEIGHBOUR_ID] for some in near.values() for row in some),
    )


def _showable(of: Tables) -> DataFrame:
    """Items of the catalogue, without those whose file is broken."""
    broken = of.rows(tables.MEDIA).where(~F.col(c.STATUS).isin(*tables.USABLE))
    return of.items().join(broken, c.ITEM_ID, "left_anti")


def _near(of: Tables, ids: Sequence[Any]) -> DataFrame:
    """The nearest items by content: the sum of the similarities by single modalities, and which these are."""
    rows = of.rows(tables.ITEM_NEIGHBOURS).where(F.col(c.ITEM_ID).isin(list(ids)) & (F.col(c.KIND) != FUSED))
    summed = rows.groupBy(c.ITEM_ID, c.NEIGHBOUR_ID).agg(
        F.sum(c.SIMILARITY).alias(c.SIMILARITY), F.array_sort(F.collect_set(c.KIND)).alias(c.KIND)
    )
    place = f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY {c.SIMILARITY} DESC, {c.NEIGHBOUR_ID})"
    return summed.withColumn("place", F.expr(place)).where(F.col("place") <= NEIGHBOURS).orderBy("place")


def _new_item(item: Row, reasons: Sequence[Row], near: Sequence[Row], known: Clips) -> NewItem:
    return NewItem(
        clip=known[item[c.ITEM_ID]],
        touched_by=item[_TOUCHED],
        recommended_to=item[_USERS],
        reasons=[Reason(str(row[c.USER_ID]), row[c.RANK], row[c.SCORE], known.get(row[c.BECAUSE])) for row in reasons],
        near=[Shown(known[row[c.NEIGHBOUR_ID]], ", ".join(row[c.KIND])) for row in near],
    )


def _grouped(key: str, rows: DataFrame) -> dict[Any, list[Row]]:
    """Rows by their key, in their order. For frames that are bounded."""
    grouped: dict[Any, list[Row]] = {}
    for row in rows.collect():
        grouped.setdefault(row[key], []).append(row)
    return grouped
