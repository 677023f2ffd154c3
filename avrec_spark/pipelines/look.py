"""Look at results on the terminal: a user's recommendations, an item's neighbours, what suits a history, declared
tastes, a text or a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table as Grid

from avrec_spark import columns as c
from avrec_spark import config, session, tables
from avrec_spark.errors import UsageError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines.find import find
from avrec_spark.pipelines.neighbours import FUSED
from avrec_spark.recommend.newcomers import histories_of_tags
from avrec_spark.tracking import Tracking

_SHOWN = 20


def show_user(settings: config.Settings, user: str) -> None:
    """The user's rows of gold.recommendations."""
    lakehouse = _lakehouse(settings)
    rows = lakehouse.read(tables.RECOMMENDATIONS).where(F.col(c.USER_ID).cast("string") == user)
    _show(
        _titled(lakehouse, rows).orderBy(c.RANK),
        f"Recommended to {user}",
        {c.RANK: "rank", c.ITEM_ID: "item", c.TITLE: "title", c.SCORE: "score", c.REASONS: "why"},
        f"No recommendation is stored for the user {user}.",
    )


def show_item(settings: config.Settings, item: str) -> None:
    """The item's rows of gold.item_neighbours, by kind."""
    lakehouse = _lakehouse(settings)
    rows = lakehouse.read(tables.ITEM_NEIGHBOURS).where(F.col(c.ITEM_ID).cast("string") == item)
    rows = rows.withColumn(c.ITEM_ID, F.col(c.NEIGHBOUR_ID))
    _show(
        _titled(lakehouse, rows).orderBy(c.KIND, c.RANK),
        f"Similar to {item}",
        {c.KIND: "kind", c.RANK: "rank", c.ITEM_ID: "item", c.TITLE: "title", c.SIMILARITY: "similarity"},
        f"No neighbours are stored for the item {item}.",
    )


def show_history(settings: config.Settings, history: list[str]) -> None:
    """Items near the given ones: the sum of their similarities, by the fused vectors where there are any."""
    lakehouse = _lakehouse(settings)
    neighbours = lakehouse.read(tables.ITEM_NEIGHBOURS).where(F.col(c.ITEM_ID).cast("string").isin(history))
    fused = neighbours.where(F.col(c.KIND) == FUSED)
    rows = (
        (fused if fused.take(1) else neighbours)
        .where(~F.col(c.NEIGHBOUR_ID).cast("string").isin(history))
        .groupBy(F.col(c.NEIGHBOUR_ID).alias("near"))
        .agg(F.sum(c.SIMILARITY).alias(c.SCORE), F.collect_set(c.ITEM_ID).alias(c.REASONS))
        .withColumnRenamed("near", c.ITEM_ID)
    )
    _show(
        _titled(lakehouse, rows).orderBy(F.col(c.SCORE).desc(), c.ITEM_ID),
        "Goes with " + ", ".join(history),
        {c.ITEM_ID: "item", c.TITLE: "title", c.SCORE: "score", c.REASONS: "near to"},
        f"No neighbours are stored for any of {', '.join(history)}.",
    )


def show_tastes(settings: config.Settings, tags: list[str]) -> None:
    """What the champion recommends to a newcomer who declares these tags."""
    lakehouse = _lakehouse(settings)
    tracking = Tracking(settings.tracking, lakehouse.root)
    champion = tracking.champion(settings.promote.registered_model)
    if champion is None:
        raise UsageError("No model has been promoted yet.", "Run the jobs train, evaluate and promote first.")
    items = lakehouse.read(tables.ITEMS).select(c.ITEM_ID, c.TITLE, c.TAGS).toPandas()
    model = Recommender.load(tracking.download(champion.source) / "artifacts" / "model")
    known = items[c.ITEM_ID].isin(model.items.ids)
    histories = histories_of_tags(items[known].sort_values(c.ITEM_ID, key=model.popularity, ascending=False), [tags])
    if not histories[0]:
        raise UsageError(f"No item has any of the tags {', '.join(tags)}.", "Spell tags as in silver.items.")
    lists = model.recommend_for_history(histories, _SHOWN, filter_seen=False)
    titled = lists.merge(items[[c.ITEM_ID, c.TITLE]], on=c.ITEM_ID, how="left")
    headings = {c.RANK: "rank", c.ITEM_ID: "item", c.TITLE: "title", c.SCORE: "score"}
    _print(titled[list(headings)].itertuples(index=False), "For a taste for " + ", ".join(tags), headings)


def show_found(
    settings: config.Settings, text: str | None, file: str | None, among: Sequence[str], model: str, k: int
) -> None:
    """What `find.find` finds."""
    found = find(settings, text, file, among, model, k)
    headings = {c.RANK: "rank", c.ITEM_ID: "item", c.TITLE: "title", c.SCORE: "cosine"}
    _print(found[list(headings)].itertuples(index=False), f"Found for {text if text is not None else file}", headings)


def _lakehouse(settings: config.Settings) -> Lakehouse:
    return Lakehouse(session.get(settings.spark), settings.lakehouse.root)


def _titled(lakehouse: Lakehouse, rows: DataFrame) -> DataFrame:
    titles = lakehouse.read_or_empty(tables.ITEMS).select(F.col(c.ITEM_ID).alias("titled"), c.TITLE)
    same = F.col(c.ITEM_ID).cast("string") == F.col("titled").cast("string")
    return rows.join(F.broadcast(titles), same, "left").drop("titled")


def _show(rows: DataFrame, caption: str, headings: dict[str, str], nothing: str) -> None:
    found = rows.select(*headings).limit(_SHOWN).collect()
    if not found:
        raise UsageError(nothing, "Check the id; the report of the run lists examples.")
    _print(found, caption, headings)


def _print(rows: Iterable[Sequence[object]], caption: str, headings: dict[str, str]) -> None:
    grid = Grid(*headings.values(), title=caption)
    for row in rows:
        grid.add_row(*[_text(value) for value in row])
    Console().print(grid)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return "; ".join(str(part) for part in value)
    return "" if value is None else str(value)
