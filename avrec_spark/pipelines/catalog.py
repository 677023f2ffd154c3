"""catalog: a folder or a list of media files → bronze.catalog and silver.items.

A folder gives one item a media file; its id is the uuid5 of the path relative to the folder, so that moving the whole
folder keeps every id. A list (CSV or Parquet with a column `uri`) may bring its own ids, titles and tags; relative
URIs are relative to the list.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import fsspec
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.errors import EmptyCatalogueError, MissingColumnsError, MissingExtraError
from avrec_spark.media.identity import content_hash
from avrec_spark.media.records import Limits, Refusal
from avrec_spark.media.source import stat
from avrec_spark.media.storage import redacted
from avrec_spark.pipelines import sources
from avrec_spark.pipelines.job import Context, Counts, Job

# Set where ids are derived from places and not brought by the catalogue.
_DERIVED = "derived"
_LISTED = f"uri string, relative string, item_id string, title string, {_DERIVED} boolean"


def run(context: Context) -> Counts:
    source = str(context.settings.catalog.source)
    listed, refused = _listed(context, source)
    quarantined = context.quarantine(refused)
    catalog = _with_files(context, listed)
    if _DERIVED in catalog.columns:
        catalog = _with_kept_ids(context, catalog, listed)
    context.lakehouse.replace(tables.CATALOG, _with_gone(context, catalog))
    written = context.lakehouse.read(tables.CATALOG)
    context.lakehouse.replace(tables.ITEMS, _with_predictions(context, _items(written)))
    found = {row[0]: row[1] for row in written.groupBy(c.STATUS).count().collect()}
    missing, gone = found.get(tables.MISSING, 0), found.get(tables.GONE, 0)
    there = found.get(tables.PRESENT, 0) + missing
    counts = {"rows_in": there + quarantined, "rows_out": there, "quarantined": quarantined}
    return counts | {"missing": missing, "gone": gone}


def _is_list(source: str) -> bool:
    return source.endswith((".csv", ".parquet")) and not fsspec.core.url_to_fs(source)[0].isdir(source)


def _listed(context: Context, source: str) -> tuple[DataFrame, DataFrame]:
    return _from_list(context, source) if _is_list(source) else _from_folder(context, source)


def _from_folder(context: Context, source: str) -> tuple[DataFrame, DataFrame]:
    """(items, refused) of the files in a folder; what has no media extension is refused."""
    extensions = {f".{extension.lower()}" for extension in context.settings.catalog.extensions}
    found = sources.files(source)
    media = [file for file in found if Path(file.relative).suffix.lower() in extensions]
    rows = [
        (file.uri, file.relative, str(uuid.uuid5(uuid.NAMESPACE_URL, file.relative)), Path(file.relative).stem, True)
        for file in media
    ]
    if not rows:
        raise EmptyCatalogueError(source, ", ".join(context.settings.catalog.extensions))
    others = [(file.relative, file.uri) for file in found if Path(file.relative).suffix.lower() not in extensions]
    refused = context.spark.createDataFrame(others, f"{c.KEY} string, {c.ORIGINAL} string")
    return context.spark.createDataFrame(rows, _LISTED), refused.select(
        F.lit(source).alias(c.SOURCE),
        c.KEY,
        F.lit("not_media").alias(c.REASON),
        F.lit("The file's extension is not one of catalog.extensions.").alias(c.DETAIL),
        c.ORIGINAL,
        F.lit(False).alias(c.RETRYABLE),
    )


def _from_list(context: Context, source: str) -> tuple[DataFrame, DataFrame]:
    """(items, refused) of a CSV or Parquet list; a row without URI, and the second row of an id, are refused."""
    reader = context.spark.read
    # Read as text: an id such as 007 must not become 7.
    frame = (
        reader.csv(source, header=True, multiLine=True, escape='"')
        if source.endswith(".csv")
        else reader.parquet(source)
    )
    if c.URI not in frame.columns:
        raise MissingColumnsError(
            f"The catalogue {source}", [c.URI], frame.columns, "Add the column uri: a path or URI a row."
        )
    frame = frame.withColumn(c.ORIGINAL, F.to_json(F.struct("*"))).withColumn("order", F.monotonically_increasing_id())
    base = fsspec.core.url_to_fs(source)[1].rsplit("/", 1)[0]
    absolute = F.col(c.URI).rlike("^(/|[a-zA-Z][a-zA-Z0-9+.-]*:)")
    if c.ITEM_ID not in frame.columns:
        frame = frame.withColumn(c.ITEM_ID, _uuid5(F.col(c.URI))).withColumn(_DERIVED, F.lit(True))
    known = {_DERIVED, c.DESCRIPTION, c.TAGS, c.CHANNEL, c.LICENCE, c.PUBLISHED_AT, c.TITLE} & set(frame.columns)
    frame = (
        frame.withColumn("relative", F.col(c.URI))
        .withColumn(c.URI, F.when(absolute, F.col(c.URI)).otherwise(F.concat(F.lit(base + "/"), F.col(c.URI))))
        .withColumn("first", F.expr(f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY `order`) = 1"))
        .withColumn(
            c.REASON,
            F.when(F.col("relative").isNull() | (F.trim("relative") == ""), "missing_uri")
            # Before every other reason: only this one keeps the row itself out of quarantine.
            .when(_redacted(c.URI) != F.col(c.URI), "credentials_in_uri")
            .when(F.col(c.ITEM_ID).isNull(), "missing_item")
            .when(~F.col("first"), "duplicate_item"),
        )
    )
    if not frame.take(1):
        raise EmptyCatalogueError(source, "a column uri")
    if c.TAGS in known and dict(frame.dtypes)[c.TAGS] == "string":
        frame = frame.withColumn(c.TAGS, F.split(c.TAGS, r"\s*[;|]\s*"))
    refused = frame.where(F.col(c.REASON).isNotNull()).select(
        F.lit(source).alias(c.SOURCE),
        F.concat_ws("#", F.lit("row"), F.col("order") + 1).alias(c.KEY),
        c.REASON,
        F.lit(
            "The row names no file, no id, an id that an earlier row already has, or a place together with "
            "credentials, which belong into the environment."
        ).alias(c.DETAIL),
        F.when(F.col(c.REASON) != "credentials_in_uri", F.col(c.ORIGINAL))
        .otherwise(_redacted(c.URI))
        .alias(c.ORIGINAL),
        F.lit(False).alias(c.RETRYABLE),
    )
    items = frame.where(F.col(c.REASON).isNull()).select(c.URI, "relative", c.ITEM_ID, *sorted(known))
    return items, refused


@F.udf(StringType())
def _redacted(uri: str | None) -> str | None:
    return redacted(uri) if uri else uri


@F.udf(StringType())
def _uuid5(relative: str | None) -> str | None:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, relative)) if relative else None


def _with_files(context: Context, listed: DataFrame) -> DataFrame:
    """Adds size, modification time, content hash and whether the file is there; unchanged files are not read again."""
    before = context.lakehouse.read_or_empty(tables.CATALOG).where(F.col(c.STATUS) == tables.PRESENT)
    before = before.select(c.URI, *[F.col(name).alias(f"old_{name}") for name in _STATE]).dropDuplicates([c.URI])
    files = listed.select(c.URI).distinct().join(before, c.URI, "left")
    schema = ", ".join(f"{name} {tables.CATALOG.columns[name]}" for name in (c.URI, *_STATE, c.STATUS))
    partitions = context.spark.sparkContext.defaultParallelism
    limits = Limits.of(context.settings.features)

    def stat_and_hash(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        for batch in batches:
            rows = [_stat_one(limits, *row) for row in batch.itertuples(index=False)]
            frame = pd.DataFrame(rows, columns=[c.URI, *_STATE, c.STATUS])
            yield frame.astype({c.SIZE: "Int64", c.MODIFIED_AT: "datetime64[us, UTC]"})

    return listed.join(files.repartition(partitions).mapInPandas(stat_and_hash, schema), c.URI, "left")


_STATE = (c.SIZE, c.MODIFIED_AT, c.VERSION, c.CONTENT_HASH)


def _stat_one(
    limits: Limits,
    uri: str,
    old_size: float | None,
    old_modified_at: pd.Timestamp | None,
    old_version: str | None,
    old_hash: str | None,
) -> tuple[str, int | None, datetime | None, str | None, str | None, str]:
    """What cannot be read has no hash; the features job says what is wrong with it."""
    try:
        found = stat(uri, limits)
    except MissingExtraError:
        return uri, None, None, None, None, tables.PRESENT
    if isinstance(found, Refusal):
        return uri, None, None, None, None, tables.MISSING if found.status == "missing" else tables.PRESENT
    same_time = not pd.isna(old_modified_at) and old_modified_at.tz_localize("UTC") == found.modified_at
    if old_hash and old_size == found.size and same_time and old_version == found.version:
        return uri, *found, old_hash, tables.PRESENT
    try:
        return uri, *found, content_hash(uri, limits), tables.PRESENT
    except Refusal:
        return uri, *found, None, tables.PRESENT


def _with_kept_ids(context: Context, catalog: DataFrame, listed: DataFrame) -> DataFrame:
    """Derived ids, except where an item of an earlier run is the same: by its place, or by content when it was renamed.

    So an edited file keeps its id, and a renamed one keeps id, features and behaviour.
    """
    if not context.lakehouse.exists(tables.CATALOG):
        return catalog
    there = context.lakehouse.read(tables.CATALOG).where(F.col(c.STATUS) == tables.PRESENT)
    there = there.select(c.URI, F.col(c.CONTENT_HASH).alias("hash"), F.col(c.ITEM_ID).alias("kept"))
    at_home = there.select(c.URI, F.col("kept").alias("by_place")).dropDuplicates([c.URI])
    # Of several copies the first in order takes the first id, and so on.
    lost = there.join(listed.select(c.URI), c.URI, "left_anti")
    lost = lost.withColumn("nth", F.expr(f"row_number() OVER (PARTITION BY hash ORDER BY {c.URI})"))
    placed = catalog.join(at_home, c.URI, "left")
    placed = placed.withColumn(
        "nth", F.expr(f"row_number() OVER (PARTITION BY {c.CONTENT_HASH}, by_place IS NULL ORDER BY {c.URI})")
    )
    moved = F.col("by_place").isNull() & (F.col(c.CONTENT_HASH) == F.col("hash")) & (placed["nth"] == lost["nth"])
    named = placed.join(lost.drop(c.URI), moved, "left").drop("nth", "hash")
    named = named.withColumn(c.ITEM_ID, F.coalesce("by_place", "kept", c.ITEM_ID))
    # A new file may lie where one lay whose id went elsewhere with its content.
    earlier = F.expr(
        f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY by_place IS NULL, kept IS NULL, {c.URI}) > 1"
    )
    homonym = _uuid5(F.concat_ws("\n", "relative", c.URI, c.CONTENT_HASH))
    return named.withColumn(c.ITEM_ID, F.when(earlier, homonym).otherwise(F.col(c.ITEM_ID)))


def _with_gone(context: Context, catalog: DataFrame) -> DataFrame:
    """Adds the items of earlier runs that the source no longer lists; they keep their features and their behaviour."""
    if not context.lakehouse.exists(tables.CATALOG):
        return catalog
    before = context.lakehouse.read(tables.CATALOG).withColumn(c.STATUS, F.lit(tables.GONE))
    names = [name for name in before.columns if name != c.ITEM_ID]
    both = before.alias("before").join(catalog.alias("now"), c.ITEM_ID, "full_outer")
    # One pass over the files: what is listed as it is now, the rest as it was.
    return both.select(c.ITEM_ID, *[_now_or_before(name, catalog) for name in names])


def _now_or_before(name: str, catalog: DataFrame) -> Column:
    now = F.col(f"now.{name}") if name in catalog.columns else F.lit(None)
    return F.when(F.col(f"now.{c.STATUS}").isNotNull(), now).otherwise(F.col(f"before.{name}")).alias(name)


def _items(catalog: DataFrame) -> DataFrame:
    """silver.items: tidy titles and tags, one row an item."""

    def tidy(name: str) -> Column:
        return F.nullif(F.trim(F.regexp_replace(name, r"\s+", " ")), F.lit(""))

    tags = F.array_distinct(F.filter(F.transform(c.TAGS, lambda tag: F.lower(F.trim(tag))), lambda tag: tag != ""))
    return catalog.select(
        c.ITEM_ID,
        tidy(c.TITLE).alias(c.TITLE),
        tidy(c.DESCRIPTION).alias(c.DESCRIPTION),
        tags.alias(c.TAGS),
        c.CHANNEL,
        c.PUBLISHED_AT,
    )


def _with_predictions(context: Context, items: DataFrame) -> DataFrame:
    """Adds what the labels job has predicted, which a new look at the catalogue does not change."""
    before = context.lakehouse.read_or_empty(tables.ITEMS)
    # A lakehouse that an earlier version wrote has no such column.
    if not context.lakehouse.exists(tables.ITEMS) or c.PREDICTED_TAGS not in before.columns:
        return items
    return items.join(before.select(c.ITEM_ID, c.PREDICTED_TAGS), c.ITEM_ID, "left")


def _check(settings: config.Settings) -> None:
    sources.require("catalog.source", settings.catalog.source)


JOB = Job(
    name="catalog",
    run=run,
    sections=("catalog", "features"),
    sources=lambda settings: {"catalog": sources.fingerprint(str(settings.catalog.source))},
    check=_check,
    writes=(tables.CATALOG, tables.ITEMS),
    # A folder's listing shows every change; what a list names must be looked at.
    skips=lambda settings: not _is_list(str(settings.catalog.source)),
)
