"""features: one pass over each new file → silver.media, shots, transcripts, gold.item_features, segment_features.

A file is known by its content hash: what is known of a content is not computed again, whatever the file is called and
however many items share it, and a new encoder decodes only what it reads. Every present item ends with a row in
silver.media and one an encoder in gold.item_features; where there is nothing to encode the vector is null and the
status says why.

The work goes in waves of about `features.commit_seconds`: a run that is interrupted goes on after its last wave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder
from avrec_spark.media.cost import CostModel, Facts, pack
from avrec_spark.pipelines import rows, texts
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.rows import FULL, PARTIAL, WORK
from avrec_spark.tables import Table

_LACKING = "lacking"
_WANTED = "encoders"
_WAVE = "wave"
# A decoder that hangs or dies may have met a busy machine; met again and again, it is the file.
_MAX_ATTEMPTS = 3
# Files that teach the prices: enough for a handful of terms.
_LESSONS = 2_000


def run(context: Context) -> Counts:
    items = _items(context).persist()
    encoders = _media_encoders(context.settings.features)
    described = _describe_new(context, items, encoders)
    copied = _copy_known(context, items, encoders)
    encoded = texts.encode_new(context)
    quarantined = context.quarantine(_refused(context, items))
    rows_in = items.count()
    items.unpersist()
    counts = {"rows_in": rows_in, "rows_out": rows_in - quarantined, "quarantined": quarantined}
    return counts | {"files_decoded": described, "items_copied": copied, "texts_encoded": encoded}


def _items(context: Context) -> DataFrame:
    catalog = context.lakehouse.read(tables.CATALOG).where(F.col(c.STATUS) != tables.GONE)
    work = F.coalesce(c.CONTENT_HASH, F.concat(F.lit("uri:"), c.URI))
    return catalog.select(
        c.ITEM_ID, c.URI, c.SIZE, work.alias(WORK), (F.col(c.STATUS) == tables.MISSING).alias(_LACKING)
    )


def _media_encoders(settings: FeatureSettings) -> list[Encoder[Any]]:
    return [encoder for encoder in registry.in_use(settings) if encoder.reads != "text"]


# -- what is new -----------------------------------------------------------------------------------------------------


def _todo(context: Context, items: DataFrame, encoders: list[Encoder[Any]]) -> DataFrame:
    """One row a content that something is unknown of: which encoders are to read it, and whether it is described.

    A failure that a retry may mend is new again, unless the catalogue has just seen that the file is still not there.
    """
    works = items.groupBy(WORK).agg(
        F.min(c.URI).alias(c.URI), F.max(c.SIZE).alias(c.SIZE), F.every(_LACKING).alias(_LACKING)
    )
    wanted = F.array(*[F.lit(encoder.name) for encoder in encoders])
    if not context.lakehouse.exists(tables.ITEM_FEATURES):
        return works.select(WORK, c.URI, c.SIZE, wanted.alias(_WANTED), F.lit(True).alias(FULL))
    have = _encoded(context, encoders).groupBy(WORK).agg(F.collect_set(c.ENCODER).alias("have"))
    known = _described(context, items).join(_finished(context), WORK, "left_semi")
    again = F.col(c.RETRYABLE) & (
        F.when(F.col(c.STATUS).isin("timeout", "corrupt"), F.col(c.ATTEMPTS) < _MAX_ATTEMPTS)
        .when(F.col(c.STATUS) == "missing", ~F.col(_LACKING))
        .otherwise(F.lit(True))
    )
    full = F.col(c.STATUS).isNull() | again
    missing = F.array_except(wanted, F.coalesce("have", F.array().cast("array<string>")))
    state = works.join(have, WORK, "left").join(known, WORK, "left")
    state = state.withColumn(FULL, full).withColumn(_WANTED, F.when(full, wanted).otherwise(missing))
    return state.where(F.col(FULL) | (F.size(_WANTED) > 0)).select(WORK, c.URI, c.SIZE, _WANTED, FULL)


def _encoded(context: Context, encoders: list[Encoder[Any]]) -> DataFrame:
    """Rows of gold.item_features that these very encoders made."""
    origins = [rows.provenance(encoder) for encoder in encoders]
    keys = [c.MODALITY, c.ENCODER, c.ENCODER_VERSION, c.PARAMETERS_HASH]
    schema = ", ".join(f"{key} string" for key in keys)
    current = context.spark.createDataFrame([tuple(origin[key] for key in keys) for origin in origins], schema)
    features = context.lakehouse.read(tables.ITEM_FEATURES).withColumnRenamed(c.INPUT_HASH, WORK)
    return features.join(F.broadcast(current), keys, "left_semi")


def _finished(context: Context) -> DataFrame:
    """Contents that were committed to the last table; a run may have been interrupted after the others."""
    features = context.lakehouse.read(tables.ITEM_FEATURES).where(F.col(c.MODALITY) != texts.TEXT)
    return features.select(F.col(c.INPUT_HASH).alias(WORK))


def _described(context: Context, items: DataFrame) -> DataFrame:
    """(work, status, retryable, attempts) of each content that silver.media knows."""
    media = context.lakehouse.read(tables.MEDIA)
    # A file without a hash is known by its place, and its row by its item.
    places = items.where(F.col(WORK).startswith("uri:")).select(c.ITEM_ID, F.col(WORK).alias("place"))
    media = media.join(places, c.ITEM_ID, "left")
    work = F.coalesce(c.CONTENT_HASH, "place")
    worst = F.max_by(F.struct(c.STATUS, c.RETRYABLE, c.ATTEMPTS), c.ATTEMPTS).alias("known")
    return media.withColumn(WORK, work).groupBy(WORK).agg(worst).select(WORK, "known.*")


# -- waves -----------------------------------------------------------------------------------------------------------


@dataclass
class _Cost:
    """Core-seconds of a run, as predicted and as they were."""

    predicted: float = 0.0
    actual: float = 0.0
    files: int = 0


def _describe_new(context: Context, items: DataFrame, encoders: list[Encoder[Any]]) -> int:
    """Decode and encode what is new, wave by wave; returns the number of files opened."""
    settings = context.settings.features
    todo = _todo(context, items, encoders)
    todo = _with_cost(context, todo).persist()
    total = todo.agg(F.count("*").alias("files"), F.sum("cost").alias("seconds")).first()
    count = int(total["files"]) if total is not None else 0
    if total is not None and count:
        names = ", ".join(encoder.name for encoder in encoders)
        context.note(f"{count:,} files to describe with {names}: about {total['seconds']:,.0f} core-seconds")
        slots = context.spark.sparkContext.defaultParallelism
        waves = max(1, math.ceil(total["seconds"] / (settings.commit_seconds * slots)))
        todo = todo.withColumn(_WAVE, F.pmod(F.xxhash64(WORK), F.lit(waves)))
        cost = _Cost()
        with context.progress.files(context.job, count, context.spark) as progress:
            for wave in range(waves):
                _describe_wave(context, items, todo.where(F.col(_WAVE) == wave).collect(), progress, cost)
        context.facts["cost"] = {
            "files": cost.files,
            "predicted_core_seconds": round(cost.predicted, 2),
            "actual_core_seconds": round(cost.actual, 2),
        }
    todo.unpersist()
    return count


def _with_cost(context: Context, todo: DataFrame) -> DataFrame:
    """Adds the estimated core-seconds, from prices learnt on what silver.media says earlier files have cost."""
    if context.lakehouse.exists(tables.MEDIA):
        catalog = context.lakehouse.read(tables.CATALOG).select(c.ITEM_ID, c.SIZE, c.URI)
        media = context.lakehouse.read(tables.MEDIA).where(F.col(c.STATUS).isin(*tables.USABLE))
        known = media.select(c.ITEM_ID, c.CONTENT_HASH, *_FACTS, c.SECONDS_SPENT).join(catalog, c.ITEM_ID)
        lessons = known.orderBy(F.xxhash64(c.ITEM_ID)).limit(_LESSONS).collect()
        model = CostModel.learned([_facts(row) for row in lessons], [row[c.SECONDS_SPENT] for row in lessons])
        contents = known.drop(c.ITEM_ID, c.SIZE, c.URI, c.SECONDS_SPENT).dropDuplicates([c.CONTENT_HASH])
        todo = todo.join(contents, todo[WORK] == contents[c.CONTENT_HASH], "left")
    else:
        model = CostModel()
        todo = todo.select("*", *[F.lit(None).cast(kind).alias(name) for name, kind in _FACTS.items()])
    range_seconds = context.settings.features.range_seconds

    @F.udf("double")
    def predict(*values: Any) -> float:
        facts = _facts(dict(zip([c.SIZE, c.URI, *_FACTS], values, strict=True)))
        return model.predict(facts) * min(1.0, range_seconds / facts.seconds if facts.seconds else 1.0)

    cost = predict(c.SIZE, c.URI, *_FACTS)
    return todo.select(WORK, c.URI, c.SIZE, _WANTED, FULL, cost.alias("cost"))


_FACTS = {name: tables.MEDIA.columns[name] for name in (c.DURATION, "width", "height", "gop", "frame_rate")}
_FACTS |= {name: "string" for name in ("video_codec", "audio_codec")}


def _facts(row: Row | dict[str, Any]) -> Facts:
    pixels = row["width"] * row["height"] if row["width"] and row["height"] else None
    return Facts(
        size=row[c.SIZE] or 0,
        uri=row[c.URI] or "",
        codec=row["video_codec"],
        pixels=pixels,
        gop=row["gop"],
        frame_rate=row["frame_rate"],
        seconds=row[c.DURATION],
        sound=row["audio_codec"] is not None,
    )


def _describe_wave(context: Context, items: DataFrame, files: list[Row], progress: Any, cost: _Cost) -> None:
    """Describe some files and commit what was found.

    First a range of each; then, of the long ones, the others, whose cost is known by now.
    """
    if not files:
        return
    first = [(row[WORK], row[c.URI], row[_WANTED], row[FULL], 0) for row in files]
    staged = _staged(context, first, [row["cost"] for row in files], "first", progress)
    cost.files += len(files)
    cost.predicted += sum(row["cost"] for row in files)
    opened = {row[WORK]: row for row in files}
    long = staged.where(F.col(PARTIAL).isNotNull()).select(WORK, c.PARTS, c.SECONDS_SPENT).collect()
    whole = staged.where(F.col(PARTIAL).isNull())
    if long:
        later, seconds = [], []
        for found in long:
            row = opened[found[WORK]]
            ranges = range(1, found[c.PARTS])
            later += [(row[WORK], row[c.URI], row[_WANTED], row[FULL], part) for part in ranges]
            seconds += [found[c.SECONDS_SPENT]] * len(ranges)
            cost.predicted += found[c.SECONDS_SPENT] * len(ranges)
        others = _staged(context, later, seconds, "later", progress)
        parts = staged.unionByName(others).where(F.col(PARTIAL).isNotNull())
        merged = parts.groupBy(WORK).applyInPandas(rows.merging(context.settings.features), rows.SCHEMA)
        whole = whole.unionByName(merged)
    spent = whole.agg(F.sum(c.SECONDS_SPENT)).first()
    cost.actual += float(spent[0] or 0.0) if spent is not None else 0.0
    _write(context, whole.join(items.select(WORK, c.ITEM_ID), WORK))
    context.lakehouse.remove("staging", context.run_id, "features")


def _staged(context: Context, files: list[tuple[Any, ...]], seconds: list[float], name: str, progress: Any) -> DataFrame:
    """Describe files in tasks of about equal length; written down at once, so that nothing is computed twice."""
    settings = context.settings.features
    slots = context.spark.sparkContext.defaultParallelism
    tasks = pack(seconds, slots, settings.seconds_per_task)
    # A slice an element is a task an element: how the work was packed is how it runs.
    packed = context.spark.sparkContext.parallelize([[files[n] for n in task] for task in tasks], len(tasks))
    frame = context.spark.createDataFrame(packed.flatMap(lambda task: task), rows.TASK_SCHEMA)
    encoders = tuple(encoder.name for encoder in _media_encoders(settings))
    described = frame.mapInPandas(progress.counted(rows.describing(settings, encoders)), rows.SCHEMA)
    staging = context.lakehouse.path("staging", context.run_id, "features", name)
    described.write.mode("overwrite").parquet(staging)
    return context.spark.read.schema(described.schema).parquet(staging)


# -- tables ----------------------------------------------------------------------------------------------------------


def _write(context: Context, results: DataFrame) -> None:
    """Split the results into the tables; item_features comes last, because its rows say that an item is finished."""
    results = results.persist()
    media = context.lakehouse.read_or_empty(tables.MEDIA)
    before = media.select(c.ITEM_ID, c.ATTEMPTS, F.col(c.CONTENT_HASH).alias("before"))
    full = results.where(FULL).join(before, c.ITEM_ID, "left").persist()
    tried = F.when(F.col("before").eqNullSafe(F.col(c.CONTENT_HASH)), F.col(c.ATTEMPTS))
    write = _Writer(context, new=full.where(F.col(c.ATTEMPTS).isNotNull()).isEmpty() and results.where(~F.col(FULL)).isEmpty())
    write.rows(tables.MEDIA, full.withColumn(c.ATTEMPTS, F.coalesce(tried, F.lit(0)) + 1))
    write.groups(tables.SHOTS, _exploded(full, "shots", tables.SHOTS), full.select(c.ITEM_ID))
    features = _exploded(results, "features", tables.ITEM_FEATURES)
    made = features.select(c.ITEM_ID, c.ENCODER, c.ENCODER_VERSION)
    for name, table in (("segments", tables.SEGMENT_FEATURES), ("transcripts", tables.TRANSCRIPTS)):
        write.groups(table, _exploded(results, name, table), made)
    write.rows(tables.ITEM_FEATURES, features)
    full.unpersist()
    results.unpersist()


@dataclass
class _Writer:
    """Writes rows of items that may be in the tables already or, where all are new, simply adds them."""

    context: Context
    new: bool

    def rows(self, table: Table, frame: DataFrame) -> None:
        (self.context.lakehouse.append if self.new else self.context.lakehouse.merge)(table, frame)

    def groups(self, table: Table, frame: DataFrame, groups: DataFrame) -> None:
        if self.new:
            self.context.lakehouse.append(table, frame)
        else:
            self.context.lakehouse.replace_groups(table, frame, groups)


def _exploded(results: DataFrame, name: str, table: Table) -> DataFrame:
    return results.select(c.ITEM_ID, F.explode(name).alias("part")).select(
        c.ITEM_ID, *[f"part.`{column}`" for column in table.columns if column != c.ITEM_ID]
    )


def _copy_known(context: Context, items: DataFrame, encoders: list[Encoder[Any]]) -> int:
    """Give items of a known content what other items of that content have; returns how many items."""
    encoded = _encoded(context, encoders)
    mine = encoded.groupBy(c.ITEM_ID, WORK).agg(F.count("*").alias("have")).where(F.col("have") >= len(encoders))
    lacking = items.join(mine, [c.ITEM_ID, WORK], "left_anti").select(c.ITEM_ID, WORK).persist()
    count = lacking.count()
    if count:
        _copy_descriptions(context, lacking)
        _copy_features(context, lacking, encoded)
    lacking.unpersist()
    return count


def _copy_descriptions(context: Context, lacking: DataFrame) -> None:
    lakehouse = context.lakehouse
    media = lakehouse.read(tables.MEDIA).withColumn(WORK, F.col(c.CONTENT_HASH))
    donors = media.groupBy(WORK).agg(F.min(c.ITEM_ID).alias("donor"))
    undescribed = lacking.join(media.select(c.ITEM_ID, WORK), [c.ITEM_ID, WORK], "left_anti")
    pairs = undescribed.join(donors, WORK).select(c.ITEM_ID, "donor").persist()
    known = media.drop(WORK).withColumnRenamed(c.ITEM_ID, "donor")
    shots = lakehouse.read(tables.SHOTS).withColumnRenamed(c.ITEM_ID, "donor")
    lakehouse.merge(tables.MEDIA, pairs.join(known, "donor").withColumn(c.SECONDS_SPENT, F.lit(0.0)))
    lakehouse.replace_groups(tables.SHOTS, pairs.join(shots, "donor"), pairs.select(c.ITEM_ID))
    pairs.unpersist()


def _copy_features(context: Context, lacking: DataFrame, encoded: DataFrame) -> None:
    lakehouse = context.lakehouse
    by_encoder = [c.MODALITY, c.ENCODER, c.ENCODER_VERSION]
    donors = encoded.dropDuplicates([WORK, *by_encoder]).withColumnRenamed(c.ITEM_ID, "donor")
    have = encoded.select(c.ITEM_ID, WORK, *by_encoder)
    new = lacking.join(donors, WORK).join(have, [c.ITEM_ID, WORK, *by_encoder], "left_anti").persist()
    pairs = new.select(c.ITEM_ID, "donor", c.ENCODER, c.ENCODER_VERSION)
    for table in (tables.SEGMENT_FEATURES, tables.TRANSCRIPTS):
        known = lakehouse.read(table).withColumnRenamed(c.ITEM_ID, "donor")
        copied = pairs.join(known, ["donor", c.ENCODER, c.ENCODER_VERSION])
        lakehouse.replace_groups(table, copied, pairs.drop("donor"))
    lakehouse.merge(tables.ITEM_FEATURES, new.withColumnRenamed(WORK, c.INPUT_HASH))
    new.unpersist()


# -- quarantine ------------------------------------------------------------------------------------------------------


def _refused(context: Context, items: DataFrame) -> DataFrame:
    """Every item of the catalogue that no features could be made of, with the reason."""
    media = context.lakehouse.read(tables.MEDIA).where(~F.col(c.STATUS).isin(*tables.USABLE))
    return media.join(items.select(c.ITEM_ID, c.URI), c.ITEM_ID).select(
        F.lit("media").alias(c.SOURCE),
        F.col(c.ITEM_ID).cast("string").alias(c.KEY),
        F.coalesce(c.REASON, c.STATUS).alias(c.REASON),
        c.DETAIL,
        F.col(c.URI).alias(c.ORIGINAL),
        c.RETRYABLE,
    )


JOB = Job(
    name="features",
    run=run,
    sections=("features",),
    reads=(tables.CATALOG, tables.ITEMS),
    writes=(tables.MEDIA, tables.SHOTS, tables.TRANSCRIPTS, tables.ITEM_FEATURES, tables.SEGMENT_FEATURES),
    skips=lambda settings: True,
)
