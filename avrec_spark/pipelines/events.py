"""events: behaviour → bronze.events as it came, silver.interactions cleaned and weighted, the rest refused.

A row of bronze.events is identified by its event id (pipelines/arrivals.py). What arrives again changes nothing, and a
record that was mended at its place or under its id takes the place of the old one; nothing is removed.
silver.interactions is computed anew from all of bronze, so that late rows and replays end in the same table whatever
their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
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
from avrec_spark.events import defences, reasons
from avrec_spark.events.cleaning import clean
from avrec_spark.events.types import IMPRESSION
from avrec_spark.events.weighting import fade
from avrec_spark.pipelines import arrivals, sources, streams
from avrec_spark.pipelines.job import Context, Counts, Job

_IDS = (c.USER_ID, c.ITEM_ID)
_ROWS_A_GROUP = 500_000
_SCHEME = re.compile(r"^[A-Za-z0-9]+:(//)?")


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
    elif settings.mode == "available-now":
        streams.take_available(context, source, partial(_take, context, source))
    else:
        streams.take_continuously(context, source, partial(_take, context, source), lambda: _refresh(context, source))
    counts = _refresh(context, source)
    if counts["rows_out"] == 0:
        raise DataError(
            f"None of the {counts['quarantined']} events in {source} is usable.",
            "ops.quarantine names the reason for each; events.columns maps other column names, events.values other "
            "words for the types.",
        )
    return counts


# -- bronze ----------------------------------------------------------------------------------------------------------


def _take(context: Context, source: str, names: set[str]) -> None:
    """Take the files of one micro-batch, named as Spark names them, into bronze."""
    listed = {_path(file.uri): file for file in sources.files(source)}
    gone = sorted(name for name in names if _path(name) not in listed)
    if gone:
        raise DataError(
            f"{gone[0]} was removed before it was taken ({len(gone)} files of a micro-batch of {len(names)}).",
            "Put it back, so that nothing is lost, and run the job again.",
        )
    files = [listed[_path(name)] for name in sorted(names)]
    arrived = arrivals.Reader(context.spark, context.settings.events, source, strict=False).read(files)
    if arrived is None:
        return
    if context.lakehouse.exists(tables.EVENTS):
        # An id of another kind is refused, by itself: it must not stop all that comes after it.
        kinds = dict(context.lakehouse.read(tables.EVENTS).dtypes)
        arrived = arrived.withColumns({name: F.col(name).try_cast(kinds[name]) for name in _IDS})
    context.lakehouse.merge(tables.EVENTS, arrived, if_differs=c.RECORD)


def _path(uri: str) -> str:
    """A file without what Spark and the listing call differently: /a, file:/a and file:///a; s3://b/a and s3a://b/a."""
    return _SCHEME.sub("", uri)


def _strangers(context: Context, source: str) -> DataFrame:
    """Files that no format is known for."""
    found = sources.files(source)
    known = arrivals.is_delta(found)
    others = [
        (file.relative, file.uri)
        for file in found
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


def _refresh(context: Context, source: str) -> Counts:
    """silver.interactions from all of bronze, and what is refused into quarantine."""
    if not context.lakehouse.exists(tables.EVENTS):
        raise DataError(
            f"Nothing has arrived in {source} yet.", "Run the job again when there are files, or correct events.source."
        )
    judged = _judge(context, context.lakehouse.read(tables.EVENTS))
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
        ).unionByName(_strangers(context, source))
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
    users, floods = _defend(rows, settings.defences, max(context.spark.sparkContext.defaultParallelism, 1))
    bots = users.where(F.col(c.REASON).isNotNull()).select(c.USER_ID, F.col(c.REASON).alias("bot"))
    judged = rows.join(bots, c.USER_ID, "left")
    judged = judged.join(floods.withColumnRenamed(c.REASON, "flood"), c.EVENT_ID, "left")
    judged = _refuse(judged, F.coalesce("bot", "flood")).drop("bot", "flood").persist()
    judged.count()
    users.unpersist()
    rows.unpersist()
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
    numbers = (c.WATCH_SECONDS, c.WATCH_RATIO, c.RATING, c.POSITION, c.PROPENSITY, c.WEIGHT)
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


def _defend(rows: DataFrame, settings: config.DefenceSettings, slots: int) -> tuple[DataFrame, DataFrame]:
    """(user_id, first_seen, reason of each user, persisted; event_id, reason of floods), as defences.defend judges.

    A call of a kernel gets many whole users, or items: a call for each would cost more than the work.
    """
    acts = rows.where(F.col(c.REASON).isNull() & (F.col(c.EVENT_TYPE) != IMPRESSION))
    acts = acts.select(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.ADDRESS)
    groups = F.lit(max(slots, acts.count() // _ROWS_A_GROUP))

    def by(frame: DataFrame, name: str, kernel: Callable[[pd.DataFrame], pd.DataFrame], schema: str) -> DataFrame:
        return frame.groupBy(F.pmod(F.xxhash64(name), groups)).applyInPandas(kernel, schema)

    user_id = f"{c.USER_ID} {dict(rows.dtypes)[c.USER_ID]}"
    verdict = f"{c.EVENT_ID} string, {c.REASON} string"
    users = by(
        acts.drop(c.ADDRESS, c.EVENT_ID),
        c.USER_ID,
        lambda some: defences.judge_users(some, settings),
        f"{user_id}, {defences.FIRST_SEEN} timestamp, {c.REASON} string",
    ).persist()
    days = users.groupBy(F.date_trunc("day", defences.FIRST_SEEN).alias(defences.DAY))
    arrived = days.agg(F.count("*").alias(defences.NEWCOMERS)).toPandas()
    acts = acts.join(users.where(F.col(c.REASON).isNull()).drop(c.REASON), c.USER_ID)
    floods = by(
        acts.drop(c.ADDRESS), c.ITEM_ID, lambda some: defences.judge_items(some, arrived, settings), verdict
    ).union(
        by(
            acts.where(F.col(c.ADDRESS).isNotNull()),
            c.ADDRESS,
            lambda some: defences.judge_addresses(some, settings),
            verdict,
        )
    )
    # Where an event is part of two floods, the first by name is told, as in the kernel: address, newcomer, repeat.
    return users, floods.groupBy(c.EVENT_ID).agg(F.min(c.REASON).alias(c.REASON))


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
    return {name: sources.fingerprint(source) for name, source in named.items() if source is not None}


JOB = Job(
    name="events",
    run=run,
    sections=("events",),
    reads=(tables.CATALOG,),
    sources=_fingerprints,
    check=_check,
)
