"""catalog: a folder or a list of media files → bronze.catalog and silver.items.

A folder gives one item a media file; its id is the uuid5 of the path relative to the folder, so that moving the whole
folder keeps every id. A list (CSV or Parquet with a column `uri`) may bring its own ids, titles and tags; relative
URIs are relative to the list.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.errors import EmptyCatalogueError, MissingColumnsError
from avrec_spark.media.identity import content_hash
from avrec_spark.media.records import Refusal
from avrec_spark.media.source import local_path
from avrec_spark.pipelines import sources
from avrec_spark.pipelines.job import Context, Counts, Job

_LISTED = "uri string, relative string, item_id string, title string"


def run(context: Context) -> Counts:
    source = str(context.settings.catalog.source)
    listed, refused = _listed(context, source)
    listed = listed.persist()
    if not listed.take(1):
        looked_for = "a column uri" if _is_list(source) else ", ".join(context.settings.catalog.extensions)
        raise EmptyCatalogueError(source, looked_for)
    quarantined = context.quarantine(refused)

    catalog = _with_files(context, listed).persist()
    new, missing = catalog.count(), catalog.where(F.col(c.STATUS) == tables.MISSING).count()
    gone = _gone(context, catalog).persist()
    counts = {"rows_in": new + quarantined, "rows_out": new, "quarantined": quarantined}
    counts |= {"missing": missing, "gone": gone.count()}
    context.lakehouse.replace(tables.CATALOG, catalog.unionByName(gone, allowMissingColumns=True))
    context.lakehouse.replace(tables.ITEMS, _items(context.lakehouse.read(tables.CATALOG)))
    return counts


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
        (file.uri, file.relative, str(uuid.uuid5(uuid.NAMESPACE_URL, file.relative)), Path(file.relative).stem)
        for file in media
    ]
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
        frame = frame.withColumn(c.ITEM_ID, _uuid5(F.col(c.URI)))
    known = {c.DESCRIPTION, c.TAGS, c.CHANNEL, c.LICENCE, c.PUBLISHED_AT, c.TITLE} & set(frame.columns)
    frame = (
        frame.withColumn("relative", F.col(c.URI))
        .withColumn(c.URI, F.when(absolute, F.col(c.URI)).otherwise(F.concat(F.lit(base + "/"), F.col(c.URI))))
        .withColumn("first", F.expr(f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY `order`) = 1"))
        .withColumn(
            c.REASON,
            F.when(F.col("relative").isNull() | (F.trim("relative") == ""), "missing_uri")
            .when(F.col(c.ITEM_ID).isNull(), "missing_item")
            .when(~F.col("first"), "duplicate_item"),
        )
        .persist()
    )
    if c.TAGS in known and dict(frame.dtypes)[c.TAGS] == "string":
        frame = frame.withColumn(c.TAGS, F.split(c.TAGS, r"\s*[;|]\s*"))
    refused = frame.where(F.col(c.REASON).isNotNull()).select(
        F.lit(source).alias(c.SOURCE),
        F.concat_ws("#", F.lit("row"), F.col("order") + 1).alias(c.KEY),
        c.REASON,
        F.lit("The row names no file, no id, or an id that an earlier row already has.").alias(c.DETAIL),
        c.ORIGINAL,
        F.lit(False).alias(c.RETRYABLE),
    )
    items = frame.where(F.col(c.REASON).isNull()).select(c.URI, "relative", c.ITEM_ID, *sorted(known))
    return items, refused


@F.udf(StringType())
def _uuid5(relative: str | None) -> str | None:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, relative)) if relative else None


def _with_files(context: Context, listed: DataFrame) -> DataFrame:
    """Adds size, modification time, content hash and whether the file is there; unchanged files are not read again."""
    before = context.lakehouse.read_or_empty(tables.CATALOG).where(F.col(c.STATUS) == tables.PRESENT)
    before = before.select(
        F.col(c.URI),
        F.col(c.SIZE).alias("old_size"),
        F.col(c.MODIFIED_AT).alias("old_modified_at"),
        F.col(c.CONTENT_HASH).alias("old_hash"),
    ).dropDuplicates([c.URI])
    files = listed.select(c.URI).distinct().join(before, c.URI, "left")
    schema = f"{c.URI} string, {c.SIZE} bigint, {c.MODIFIED_AT} timestamp, {c.CONTENT_HASH} string, {c.STATUS} string"
    partitions = context.spark.sparkContext.defaultParallelism
    statted = files.repartition(partitions).mapInPandas(_stat_and_hash, schema)
    return listed.join(statted, c.URI, "left")


def _stat_and_hash(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
    for batch in batches:
        yield pd.DataFrame(
            [_stat_one(*row) for row in batch.itertuples(index=False)],
            columns=[c.URI, c.SIZE, c.MODIFIED_AT, c.CONTENT_HASH, c.STATUS],
        ).astype({c.SIZE: "Int64", c.MODIFIED_AT: "datetime64[us, UTC]"})


def _stat_one(
    uri: str, old_size: float | None, old_modified_at: pd.Timestamp | None, old_hash: str | None
) -> tuple[str, int | None, datetime | None, str | None, str]:
    try:
        path = local_path(uri)
        found = os.stat(path)
    except (OSError, Refusal):
        return uri, None, None, None, tables.MISSING
    modified_at = datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1e6, UTC)
    same_time = old_modified_at is not None and old_modified_at.tz_localize("UTC") == modified_at
    unchanged = old_hash and old_size == found.st_size and same_time
    # A pipe must not be read, and what cannot be read has no hash; the features job says what is wrong with either.
    readable = stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK)
    hashed = old_hash if unchanged else content_hash(path) if readable else None
    return uri, found.st_size, modified_at, hashed, tables.PRESENT


def _gone(context: Context, catalog: DataFrame) -> DataFrame:
    """Items of earlier runs that the source no longer lists; they keep their features and their behaviour."""
    if not context.lakehouse.exists(tables.CATALOG):
        return catalog.limit(0)
    before = context.lakehouse.read(tables.CATALOG)
    return before.join(catalog.select(c.ITEM_ID), c.ITEM_ID, "left_anti").withColumn(c.STATUS, F.lit(tables.GONE))


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


def _check(settings: config.Settings) -> None:
    sources.require("catalog.source", settings.catalog.source)


JOB = Job(
    name="catalog",
    run=run,
    sections=("catalog",),
    sources=lambda settings: {"catalog": sources.fingerprint(str(settings.catalog.source))},
    check=_check,
)
