"""events: behaviour files → bronze.events as they came, silver.interactions cleaned and weighted, the rest refused.

A row of bronze.events is identified by its own event id, or by its file and position. What arrives again changes
nothing, and a record that was mended at its place or under its id takes the place of the old one; nothing is removed.
silver.interactions is computed anew from all of bronze, so that late rows and replays end in the same table whatever
their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType, StringType, StructType

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.events import reasons
from avrec_spark.events.cleaning import clean
from avrec_spark.pipelines import sources
from avrec_spark.pipelines.job import Context, Counts, Job

REQUIRED = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.TIMESTAMP)
OPTIONAL = (c.EVENT_ID, c.WATCH_SECONDS, c.RATING, c.PLATFORM, c.SESSION_ID)
FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_CORRUPT = "_corrupt_record"
_FILE = "file"
_IDS = (c.USER_ID, c.ITEM_ID)


def run(context: Context) -> Counts:
    source = str(context.settings.events.source)
    arrived, strangers = _arrived(context, source)
    context.lakehouse.merge(tables.EVENTS, arrived, if_differs=c.RECORD)
    bronze = context.lakehouse.read(tables.EVENTS)

    judged = _judge(context, bronze).persist()
    refused = judged.where(F.col(c.REASON).isNotNull())
    accepted = judged.where(F.col(c.REASON).isNull())
    quarantined = context.quarantine(
        refused.select(
            c.SOURCE,
            F.col(c.EVENT_ID).alias(c.KEY),
            c.REASON,
            c.DETAIL,
            F.col(c.RECORD).alias(c.ORIGINAL),
            F.lit(False).alias(c.RETRYABLE),
        ).unionByName(strangers)
    )
    context.lakehouse.replace(tables.INTERACTIONS, accepted)
    rows_out = accepted.count()
    judged.unpersist()
    if rows_out == 0:
        raise DataError(
            f"None of the {quarantined} events in {source} is usable.",
            "ops.quarantine names the reason for each; events.columns maps other column names.",
        )
    return {"rows_in": rows_out + quarantined, "rows_out": rows_out, "quarantined": quarantined}


# -- bronze ----------------------------------------------------------------------------------------------------------


def _arrived(context: Context, source: str) -> tuple[DataFrame, DataFrame]:
    """(rows of tables.EVENTS, refused files): every record of every file, in the words it arrived in."""
    found = sources.files(source)
    known = [file for file in found if Path(file.relative).suffix.lower() in FORMATS]
    frames = []
    for extension in sorted({Path(file.relative).suffix.lower() for file in known}):
        paths = [file.uri for file in known if Path(file.relative).suffix.lower() == extension]
        frames.append(_read(context.spark, FORMATS[extension], paths, context.settings.events, source))
    if not frames:
        raise DataError(
            f"The events source {source} holds no file that can be read ({', '.join(FORMATS)}).",
            "Point events.source to a CSV, JSON lines or Parquet file, or to a folder of such files.",
        )
    arrived = _told_apart(reduce(DataFrame.unionByName, frames))
    others = [(file.relative, file.uri) for file in found if file not in known]
    strangers = context.spark.createDataFrame(others, f"{c.KEY} string, {c.ORIGINAL} string").select(
        F.lit(source).alias(c.SOURCE),
        c.KEY,
        F.lit(reasons.NOT_EVENTS).alias(c.REASON),
        F.lit("The file is neither CSV, JSON lines nor Parquet.").alias(c.DETAIL),
        c.ORIGINAL,
        F.lit(False).alias(c.RETRYABLE),
    )
    return arrived, strangers


def _read(
    spark: SparkSession, file_format: str, paths: list[str], settings: config.EventSettings, source: str
) -> DataFrame:
    """Records of files of one format with our column names, their position (`row`) and their original text."""
    raw = _READERS[file_format](spark, paths)
    theirs = {name: settings.columns.get(name, name) for name in (*REQUIRED, *OPTIONAL)}
    data = [name for name in raw.columns if name != _CORRUPT]
    missing = [theirs[name] for name in REQUIRED if theirs[name] not in data]
    if missing:
        raise MissingColumnsError(
            f"The events {source} ({file_format})",
            missing,
            data,
            "Rename the columns, or map them: --set events.columns.user_id=YOUR_NAME.",
        )
    positioned = raw.select(
        "*",
        F.col("_metadata.file_path").alias(_FILE),
        F.col("_metadata.file_block_start").alias("block"),
        F.monotonically_increasing_id().alias("order"),
    )
    original = F.to_json(F.struct(*[F.col(f"`{name}`") for name in data]))
    positioned = positioned.select(
        *[_column(positioned, theirs[name], name) for name in (*REQUIRED, *OPTIONAL)],
        F.lit(source).alias(c.SOURCE),
        (F.expr(f"row_number() OVER (PARTITION BY {_FILE} ORDER BY block, `order`)") - 1).alias(c.ROW),
        F.coalesce(F.col(_CORRUPT), original).alias(c.RECORD),
        F.current_timestamp().alias(c.ARRIVED_AT),
        _FILE,
    )
    position = F.sha2(F.concat_ws("#", _FILE, c.ROW), 256)
    return positioned.withColumn(c.EVENT_ID, F.coalesce(c.EVENT_ID, position))


def _told_apart(arrived: DataFrame) -> DataFrame:
    """Records that share an event id get a number each but the first, so that none hides another."""
    number = F.expr(f"row_number() OVER (PARTITION BY {c.EVENT_ID} ORDER BY {_FILE}, {c.ROW})")
    numbered = arrived.withColumn("number", number)
    event_id = F.when(F.col("number") > 1, F.concat_ws("#", c.EVENT_ID, "number")).otherwise(F.col(c.EVENT_ID))
    return numbered.withColumn(c.EVENT_ID, event_id).drop("number", _FILE)


def _read_csv(spark: SparkSession, paths: list[str]) -> DataFrame:
    header = spark.read.csv(paths, header=True).columns
    schema = StructType()
    for name in (*header, _CORRUPT):
        schema = schema.add(name, StringType())
    # All text: an id such as 007 must not become 7. A file whose header differs from the first one's is an error.
    return spark.read.csv(
        paths, schema=schema, header=True, columnNameOfCorruptRecord=_CORRUPT, enforceSchema=False, escape='"'
    )


def _read_json(spark: SparkSession, paths: list[str]) -> DataFrame:
    inferred = spark.read.json(paths, columnNameOfCorruptRecord=_CORRUPT).schema
    schema = StructType([field for field in inferred if field.name != _CORRUPT]).add(_CORRUPT, StringType())
    return spark.read.json(paths, schema=schema, columnNameOfCorruptRecord=_CORRUPT)


def _read_parquet(spark: SparkSession, paths: list[str]) -> DataFrame:
    return spark.read.parquet(*paths).withColumn(_CORRUPT, F.lit(None).cast("string"))


_READERS: dict[str, Callable[[SparkSession, list[str]], DataFrame]] = {
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
}


def _column(frame: DataFrame, theirs: str, ours: str) -> Column:
    """A column of the source under our name: ids keep their kind, anything else becomes text."""
    if theirs not in frame.columns:
        return F.lit(None).cast("string").alias(ours)
    column = F.col(f"`{theirs}`")
    if ours in _IDS and isinstance(frame.schema[theirs].dataType, IntegralType):
        return column.cast("bigint").alias(ours)
    return column.cast("string").alias(ours)


# -- silver ----------------------------------------------------------------------------------------------------------


def _judge(context: Context, bronze: DataFrame) -> DataFrame:
    """Every event with its typed columns and, where it is refused, the reason.

    The kernel judges rows by themselves; duplicates and unknown items need the whole table and are judged here.
    """
    settings, now = context.settings.events, datetime.now(UTC)

    def kernel(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        for batch in batches:
            yield clean(batch, settings, now)[names]

    types = dict(bronze.dtypes)
    kept = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.PLATFORM, c.SESSION_ID, c.SOURCE, c.ROW, c.RECORD)
    schema = {name: types[name] for name in kept}
    schema |= {c.TIMESTAMP: "timestamp", c.WEIGHT: "double", c.REASON: "string", c.DETAIL: "string"}
    names = list(schema)
    # pandas holds integers beside nulls as floats, which cannot tell large ids apart: ids pass the kernel as text.
    ids = {name: types[name] for name in _IDS}
    schema |= dict.fromkeys(ids, "string")
    as_text = bronze.withColumns({name: F.col(name).cast("string") for name in ids})
    judged = as_text.mapInPandas(kernel, ", ".join(f"`{name}` {kind}" for name, kind in schema.items()))
    judged = judged.withColumns({name: F.col(name).cast(kind) for name, kind in ids.items()})
    return _without_duplicates(_of_known_items(context, judged))


def _of_known_items(context: Context, judged: DataFrame) -> DataFrame:
    """Refuse events on items that the catalogue does not list; without a catalogue every item is known."""
    if not context.lakehouse.exists(tables.CATALOG):
        return judged
    catalog = context.lakehouse.read(tables.CATALOG).select(F.col(c.ITEM_ID).alias("known"))
    joined = judged.join(catalog, F.col(c.ITEM_ID).cast("string") == F.col("known").cast("string"), "left")
    unknown = F.col(c.REASON).isNull() & F.col("known").isNull()
    # The catalogue's type of id holds in the whole lakehouse.
    item_id = F.coalesce(F.col("known"), F.expr(f"try_cast({c.ITEM_ID} AS {dict(catalog.dtypes)['known']})"))
    return _refuse(joined, unknown, reasons.UNKNOWN_ITEM).withColumn(c.ITEM_ID, item_id).drop("known")


def _without_duplicates(judged: DataFrame) -> DataFrame:
    """Refuse all but the first of the events that agree in user, item, time and type."""
    key = ", ".join((c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.EVENT_TYPE, f"{c.REASON} IS NULL"))
    position = F.expr(f"row_number() OVER (PARTITION BY {key} ORDER BY {c.SOURCE}, {c.ROW}, {c.EVENT_ID})")
    counted = judged.withColumn("position", position)
    repeated = F.col(c.REASON).isNull() & (F.col("position") > 1)
    return _refuse(counted, repeated, reasons.DUPLICATE).drop("position")


def _refuse(frame: DataFrame, condition: Column, reason: str) -> DataFrame:
    return frame.withColumns(
        {
            c.REASON: F.when(condition, reason).otherwise(F.col(c.REASON)),
            c.DETAIL: F.when(condition, reasons.SENTENCES[reason]).otherwise(F.col(c.DETAIL)),
        }
    )


def _check(settings: config.Settings) -> None:
    sources.require("events.source", settings.events.source)


JOB = Job(
    name="events",
    run=run,
    sections=("events",),
    reads=(tables.CATALOG,),
    sources=lambda settings: {"events": sources.fingerprint(str(settings.events.source))},
    check=_check,
)
