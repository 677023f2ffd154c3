"""events: behaviour → bronze.events as it came, silver.interactions cleaned and weighted, the rest refused.

A row of bronze.events is identified by its event id (pipelines/arrivals.py). What arrives again changes nothing, and a
record that was mended at its place or under its id takes the place of the old one; nothing is removed.
silver.interactions is computed anew from all of bronze, so that late rows and replays end in the same table whatever
their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.errors import DataError, MissingColumnsError, SettingsError
from avrec_spark.events import reasons
from avrec_spark.events.cleaning import clean
from avrec_spark.events.weighting import fade
from avrec_spark.pipelines import arrivals, defences, kafka, sources, streams
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.sources import SourceFile

_IDS = (c.USER_ID, c.ITEM_ID)
# In the words of Spark's readers, of its planner, and of Python.
_GONE = re.compile(
    r"reading file (.+?)\. File does not exist|Path does not exist: (.+?)\. SQLSTATE|No such file or directory: '(.+?)'"
)


def run(context: Context) -> Counts:
    source, settings = str(context.settings.events.source), context.settings.events
    if settings.mode == "batch":
        files = sources.files(source)
        arrived = arrivals.Reader(context.spark, settings, source).read(files)
        if arrived is None:
            raise DataError(
                f"The events source {source} holds no file that can be read ({', '.join(arrivals.FORMATS)}).",
                "Point events.source to a CSV, JSON lines or Parquet file, to a folder of such files, or to a Delta "
                "table; events.format reads files of other names.",
            )
        context.lakehouse.merge(tables.EVENTS, arrived, if_differs=c.RECORD)
        counts = _refresh(context, source, files)
    else:
        counts = _follow(context, source)
    if counts["rows_out"] == 0:
        raise DataError(
            f"None of the {counts['quarantined']} events in {source} is usable.",
            "ops.quarantine names the reason for each; events.columns maps other column names, events.values other "
            "words for the types.",
        )
    return counts


# -- bronze ----------------------------------------------------------------------------------------------------------


def _follow(context: Context, source: str) -> Counts:
    """Take what has come since the last time or, continuously, what comes."""
    of_kafka = kafka.is_kafka(source)
    take = partial(_take_records if of_kafka else _take_files, context, source)

    def refresh() -> Counts:
        return _refresh(context, source, [] if of_kafka else sources.files(source))

    if context.settings.events.mode == "available-now":
        streams.take_available(context, source, take)
    else:
        streams.take_continuously(context, source, take, refresh)
    return refresh()


def _take_files(context: Context, source: str, batch: DataFrame) -> None:
    """Take the files of one micro-batch into bronze."""
    try:
        files = [
            SourceFile(row["path"], PurePosixPath(row["path"]).name, row["length"], row["modificationTime"].timestamp())
            for row in batch.orderBy("path").collect()
        ]
        arrived = arrivals.Reader(context.spark, context.settings.events, source, strict=False).read(files)
        if arrived is not None:
            _add(context, arrived)
    except Exception as error:
        gone = _GONE.search(str(error))
        if gone is None:
            raise
        raise DataError(
            f"{gone[gone.lastindex or 0]} was removed before it was taken.",
            "Put it back, so that nothing is lost, and run the job again.",
        ) from error


def _take_records(context: Context, source: str, batch: DataFrame) -> None:
    """Take the records of one micro-batch into bronze; they are read once for their layout and once for themselves."""
    batch.persist()
    try:
        _add(context, arrivals.Reader(context.spark, context.settings.events, source).read_records(batch))
    finally:
        batch.unpersist()


def _add(context: Context, arrived: DataFrame) -> None:
    if context.lakehouse.exists(tables.EVENTS):
        # An id of another kind is refused, by itself: it must not stop all that comes after it.
        kinds = dict(context.lakehouse.read(tables.EVENTS).dtypes)
        arrived = arrived.withColumns({name: F.col(name).try_cast(kinds[name]) for name in _IDS})
    context.lakehouse.merge(tables.EVENTS, arrived, if_differs=c.RECORD)


def _strangers(context: Context, source: str, files: list[SourceFile]) -> DataFrame:
    """Those of the files that no format is known for."""
    known = arrivals.is_delta(files)
    others = [
        (file.relative, file.uri)
        for file in files
        if not known and arrivals.format_of(file, context.settings.events) is None
    ]
    return context.spark.createDataFrame(others, f"{c.KEY} string, {c.ORIGINAL} string").select(
        F.lit(source).alias(c.SOURCE),
        c.KEY,
        F.lit(reasons.NOT_EVENTS).alias(c.REASON),
        F.lit(reasons.SENTENCES[reasons.NOT_EVENTS]).alias(c.DETAIL),
        c.ORIGINAL,
        F.lit(False).alias(c.RETRYABLE),
    )


# -- silver ----------------------------------------------------------------------------------------------------------


def _refresh(context: Context, source: str, files: list[SourceFile]) -> Counts:
    """silver.interactions from all of bronze; what is refused, and the source's strangers, into quarantine."""
    if not context.lakehouse.exists(tables.EVENTS):
        raise DataError(
            f"Nothing has arrived in {source} yet.", "Run the job again when something has, or correct events.source."
        )
    judged = _judge(context, context.lakehouse.read(tables.EVENTS))
    refused = judged.where(F.col(c.REASON).isNotNull())
    accepted = judged.where(F.col(c.REASON).isNull())
    quarantined = context.quarantine(
        refused.select(
            c.SOURCE,
            # A record of a topic is told by its place; its own event id is in its text.
            F.when(F.startswith(c.SOURCE, F.lit("kafka:")), kafka.place()).otherwise(F.col(c.EVENT_ID)).alias(c.KEY),
            c.REASON,
            c.DETAIL,
            F.col(c.RECORD).alias(c.ORIGINAL),
            F.lit(False).alias(c.RETRYABLE),
        ).unionByName(_strangers(context, source, files))
    )
    rows_out = accepted.count()
    if (half_life := context.settings.events.half_life_days) is not None:
        accepted = _faded(accepted, half_life)
    context.lakehouse.replace(tables.INTERACTIONS, accepted)
    judged.unpersist()
    return {"rows_in": rows_out + quarantined, "rows_out": rows_out, "quarantined": quarantined}


def _judge(context: Context, bronze: DataFrame) -> DataFrame:
    """Every event with its typed columns and, where it is refused, the reason; persisted.

    The kernel judges rows by themselves; duplicates, unknown items and users, bots and floods need more and come after.
    """
    settings = context.settings.events
    rows = _clean(context, bronze)
    if settings.unknown_items == "quarantine":
        rows = _of_known_items(context, rows)
    if settings.users is not None:
        rows = _of_known_users(context, rows, settings.users)
    rows = _without_duplicates(rows).persist()
    if not settings.defences.enabled:
        return rows
    slots = max(context.spark.sparkContext.defaultParallelism, 1)
    judged, used = defences.judge(rows, settings.defences, slots)
    judged = _refuse(judged, F.col(defences.VERDICT)).drop(defences.VERDICT).persist()
    judged.count()
    for frame in (rows, *used):
        frame.unpersist()
    return judged


def _clean(context: Context, bronze: DataFrame) -> DataFrame:
    settings, now = context.settings.events, datetime.now(UTC)
    # A bronze table of an earlier version lacks what it did not know of.
    lacking = {name: F.lit(None).cast("string") for name in tables.EVENTS.columns if name not in bronze.columns}
    bronze = bronze.withColumns(lacking)
    if settings.durations == "media" and context.lakehouse.exists(tables.MEDIA):
        media = context.lakehouse.read(tables.MEDIA).select(
            F.col(c.ITEM_ID).cast("string").alias("known"), F.col(c.DURATION).cast("string").alias("found")
        )
        bronze = bronze.join(media, F.col(c.ITEM_ID).cast("string") == F.col("known"), "left")
        bronze = bronze.withColumn(c.DURATION, F.coalesce(c.DURATION, "found")).drop("known", "found")

    def kernel(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        for batch in batches:
            yield clean(batch, settings, now)[names]

    types = dict(bronze.dtypes)
    kept = (
        *(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.PLATFORM, c.DEVICE, c.SESSION_ID, c.ADDRESS),
        *(c.LIST_ID, c.EXPERIMENT_ARM, c.SOURCE, c.ROW, c.RECORD),
    )
    schema = {name: types[name] for name in kept}
    numbers = (c.WATCH_SECONDS, c.WATCH_RATIO, c.RATING, c.POSITION, c.PROPENSITY, c.WEIGHT, c.OPINION)
    schema |= {c.TIMESTAMP: "timestamp", **dict.fromkeys(numbers, "double"), c.REASON: "string", c.DETAIL: "string"}
    names = list(schema)
    # pandas holds integers beside nulls as floats, which cannot tell large ids apart: ids pass the kernel as text.
    ids = {name: types[name] for name in _IDS}
    schema |= dict.fromkeys(ids, "string")
    as_text = bronze.withColumns({name: F.col(name).cast("string") for name in ids})
    judged = as_text.mapInPandas(kernel, ", ".join(f"`{name}` {kind}" for name, kind in schema.items()))
    return judged.withColumns({name: F.col(name).cast(kind) for name, kind in ids.items()})


def _of_known_items(context: Context, judged: DataFrame) -> DataFrame:
    """Refuse events on items that the catalogue does not list; without a catalogue every item is known."""
    if not context.lakehouse.exists(tables.CATALOG):
        return judged
    catalog = context.lakehouse.read(tables.CATALOG).select(F.col(c.ITEM_ID).alias("known"))
    joined = judged.join(catalog, F.col(c.ITEM_ID).cast("string") == F.col("known").cast("string"), "left")
    # The catalogue's type of id holds in the whole lakehouse.
    item_id = F.coalesce(F.col("known"), F.expr(f"try_cast({c.ITEM_ID} AS {dict(catalog.dtypes)['known']})"))
    return (
        _refuse(joined, F.when(F.col("known").isNull(), reasons.UNKNOWN_ITEM))
        .withColumn(c.ITEM_ID, item_id)
        .drop("known")
    )


def _of_known_users(context: Context, judged: DataFrame, source: str) -> DataFrame:
    """Refuse events of users that the list does not name."""
    files = sources.files(source)
    formats = {arrivals.FORMATS.get(PurePosixPath(file.relative.lower()).suffix) for file in files}
    if len(formats) != 1 or not formats <= {"csv", "parquet"}:
        raise SettingsError(
            f"events.users is {source}, which is no list of users.", "Name one CSV or Parquet file with user_id."
        )
    read = context.spark.read.option("header", True).format(str(formats.pop())).load([file.uri for file in files])
    if c.USER_ID not in read.columns:
        raise MissingColumnsError(f"The list events.users, {source},", [c.USER_ID], read.columns)
    known = read.select(F.trim(F.col(c.USER_ID).cast("string")).alias("known")).distinct()
    joined = judged.join(known, F.trim(F.col(c.USER_ID).cast("string")) == F.col("known"), "left")
    return _refuse(joined, F.when(F.col("known").isNull(), reasons.UNKNOWN_USER)).drop("known")


def _without_duplicates(judged: DataFrame) -> DataFrame:
    """Refuse all but the first of the events that agree in user, item, time and type."""
    key = ", ".join((c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.EVENT_TYPE, f"{c.REASON} IS NULL"))
    number = F.expr(f"row_number() OVER (PARTITION BY {key} ORDER BY {c.SOURCE}, {c.ROW}, {c.EVENT_ID})")
    counted = judged.withColumn("number", number)
    return _refuse(counted, F.when(F.col("number") > 1, reasons.DUPLICATE)).drop("number")


def _faded(accepted: DataFrame, half_life_days: float) -> DataFrame:
    """Weights by age, counted from the latest accepted event, so that the same events weigh the same on any day."""
    micros = accepted.agg(F.max(F.unix_micros(c.TIMESTAMP))).first()
    latest = pd.Timestamp(micros[0] if micros is not None else 0, unit="us")

    @pandas_udf("double")  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    def faded(weights: pd.Series, times: pd.Series) -> pd.Series:  # type: ignore[type-arg]
        return fade(weights, times, latest, half_life_days)

    return accepted.withColumn(c.WEIGHT, faded(c.WEIGHT, c.TIMESTAMP))


def _refuse(frame: DataFrame, verdict: Column) -> DataFrame:
    """Refuse the rows for which `verdict` is a reason and which have none yet."""
    sentences = F.create_map(*[F.lit(word) for pair in reasons.SENTENCES.items() for word in pair])
    return frame.withColumns(
        {c.REASON: F.coalesce(c.REASON, verdict), c.DETAIL: F.coalesce(F.col(c.DETAIL), sentences[verdict])}
    )


def _check(settings: config.Settings) -> None:
    if kafka.is_kafka(settings.events.source):
        kafka.check(settings.events)
    else:
        sources.require("events.source", settings.events.source)
    if settings.events.users is not None:
        sources.require("events.users", settings.events.users)
    if settings.events.mode != "batch" and settings.events.format == "delta":
        raise SettingsError(
            f"events.mode={settings.events.mode} takes the files of a folder, and the source is a Delta table.",
            "Read it with events.mode=batch: what was there before changes nothing.",
        )


def _fingerprints(settings: config.Settings) -> dict[str, str]:
    named = {"events": settings.events.source, "users": settings.events.users}
    return {
        # What a topic holds is known to its stream only.
        name: source if kafka.is_kafka(source) else sources.fingerprint(source)
        for name, source in named.items()
        if source is not None
    }


JOB = Job(
    name="events",
    run=run,
    sections=("events",),
    reads=(tables.CATALOG,),
    sources=_fingerprints,
    check=_check,
)
