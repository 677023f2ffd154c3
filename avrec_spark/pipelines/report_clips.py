"""What the sections of the report share: its tables, and the clips that they show, fetched once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.pipelines.job import Context
from avrec_spark.report.data import Clip, Shown

Clips = Mapping[Any, Clip]
T = TypeVar("T")

_NEIGHBOURS_OF, NEIGHBOURS = 6, 4


@dataclass(frozen=True)
class Section(Generic[T]):
    """What a section shows, as soon as the clips of these item ids are there."""

    build: Callable[[Clips], T]
    wants: frozenset[Any] = field(default_factory=frozenset)

    @classmethod
    def of(cls, build: Callable[[Clips], T], *wants: Iterable[Any]) -> Section[T]:
        return cls(build, frozenset(one for some in wants for one in some if one is not None))


@dataclass(frozen=True)
class Tables:
    """Tables as the report reads them: one that does not exist has no rows."""

    context: Context

    def rows(self, table: tables.Table) -> DataFrame:
        return self.context.lakehouse.read_or_empty(table)

    def of_run(self, table: tables.Table) -> DataFrame:
        return self.rows(table).where(F.col(c.RUN_ID) == self.context.run_id)

    def items(self) -> DataFrame:
        """Rows of bronze.catalog that are not gone."""
        return self.rows(tables.CATALOG).where(F.col(c.STATUS) != tables.GONE)

    def touched(self) -> DataFrame:
        """item_id, users: how many users express a preference for it."""
        liked = self.rows(tables.INTERACTIONS).where(F.col(c.WEIGHT) > 0)
        return liked.groupBy(c.ITEM_ID).agg(F.countDistinct(c.USER_ID).alias("users"))


def clips(of: Tables, item_ids: frozenset[Any]) -> dict[Any, Clip]:
    """Title, state, and the thumbnail of the longest shot."""
    if not item_ids:
        return {}
    kind = "bigint" if all(isinstance(item, int) for item in item_ids) else "string"
    wanted = of.context.spark.createDataFrame([(item,) for item in item_ids], f"{c.ITEM_ID} {kind}")
    place = F.expr(f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY {c.END} - {c.START} DESC, {c.SHOT}) = 1")
    longest = of.rows(tables.SHOTS).withColumn("longest", place).where("longest")
    media = of.rows(tables.MEDIA).select(c.ITEM_ID, c.DURATION, c.STATUS, c.REASON)
    rows = (
        F.broadcast(wanted)
        .join(of.rows(tables.ITEMS).select(c.ITEM_ID, c.TITLE), c.ITEM_ID, "left")
        .join(media, c.ITEM_ID, "left")
        .join(longest.select(c.ITEM_ID, c.THUMBNAIL), c.ITEM_ID, "left")
        .collect()
    )
    return {
        row[c.ITEM_ID]: Clip(
            item_id=str(row[c.ITEM_ID]),
            title=row[c.TITLE],
            thumbnail=bytes(row[c.THUMBNAIL]) if row[c.THUMBNAIL] is not None else None,
            duration=row[c.DURATION],
            status=row[c.STATUS] or "not decoded",
            reason=row[c.REASON],
        )
        for row in rows
    }


def contact_sheet(of: Tables, items: int) -> Section[list[Clip]]:
    """What went wrong first, then in an order that says nothing."""
    media = of.rows(tables.MEDIA).select(c.ITEM_ID, F.col(c.STATUS).alias("media_status"))
    order = [(F.col("media_status") == "ok").asc_nulls_first(), F.xxhash64(c.ITEM_ID)]
    rows = of.items().join(media, c.ITEM_ID, "left").orderBy(*order).select(c.ITEM_ID).limit(items).collect()
    ids = [row[0] for row in rows]
    return Section.of(lambda known: [known[item] for item in ids if item in known], ids)


def neighbours(of: Tables) -> Section[list[tuple[Clip, dict[str, list[Shown]]]]]:
    """Of some items, those with the most kinds of neighbours, the nearest ones of each kind."""
    rows = of.rows(tables.ITEM_NEIGHBOURS)
    kinds = rows.groupBy(c.ITEM_ID).agg(F.countDistinct(c.KIND).alias("kinds"))
    chosen = kinds.orderBy(F.desc("kinds"), F.xxhash64(c.ITEM_ID)).limit(_NEIGHBOURS_OF).select(c.ITEM_ID)
    near = rows.where(F.col(c.RANK) <= NEIGHBOURS).join(chosen, c.ITEM_ID, "left_semi")
    found = near.orderBy(F.xxhash64(c.ITEM_ID), c.KIND, c.RANK).collect()

    def build(known: Clips) -> list[tuple[Clip, dict[str, list[Shown]]]]:
        by_item: dict[Any, dict[str, list[Shown]]] = {}
        for row in found:
            shown = Shown(known[row[c.NEIGHBOUR_ID]], score=row[c.SIMILARITY])
            by_item.setdefault(row[c.ITEM_ID], {}).setdefault(row[c.KIND], []).append(shown)
        return [(known[item], kinds) for item, kinds in by_item.items()]

    return Section.of(build, (row[c.ITEM_ID] for row in found), (row[c.NEIGHBOUR_ID] for row in found))
