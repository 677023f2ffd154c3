"""features: one pass over each new file → silver.media, shots, transcripts, gold.item_features, segment_features.

A file is known by its content hash: what is known of a content is not computed again, whatever the file is called and
however many items share it, and a new encoder decodes only what it reads. Every present item ends with a row in
silver.media and one an encoder in gold.item_features; where there is nothing to encode the vector is null and the
status says why.

The work goes in waves of about `features.commit_seconds`: a run that is interrupted goes on after its last wave.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.config import FeatureSettings, Settings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder
from avrec_spark.media.cost import CostModel, Facts, pack
from avrec_spark.pipelines import rows, texts
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.rows import FULL, PARTIAL, WORK
from avrec_spark.progress import FileProgress
from avrec_spark.tables import Table

_LACKING = "lacking"
_WANTED = "encoders"
# A decoder that hangs or dies may have met a busy machine; met again and again, it is the file.
_MAX_ATTEMPTS = 3
# Files that teach the prices: enough for a handful of terms.
_LESSONS = 2_000
# Files whose names the driver holds at once.
_PAGE = 100_000


def run(context: Context) -> Counts:
    items = _items(context)
    encoders = _media_encoders(context.settings.features)
    described = _describe_new(context, items, encoders)
    copied = _copy_known(context, items, encoders)
    encoded = texts.encode_new(context)
    quarantined = context.quarantine(_refused(context, items))
    rows_in = items.count()
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
    """One row a content that something is unknown of: which encoders are to read it, whether it is to be described,
    and what is known of it: the columns of `_FACTS` and the number of attempts, null where it was never opened.

    A failure that a retry may mend is new again, unless the catalogue has just seen that the file is still not there.
    """
    works = items.groupBy(WORK).agg(
        F.min(c.URI).alias(c.URI), F.max(c.SIZE).alias(c.SIZE), F.every(_LACKING).alias(_LACKING)
    )
    wanted = F.array(*[F.lit(encoder.name) for encoder in encoders])
    state = works.join(_known(context, items), WORK, "left").join(_have(context, encoders), WORK, "left")
    again = F.col(c.RETRYABLE) & (
        F.when(F.col(c.STATUS).isin("timeout", "corrupt"), F.col(c.ATTEMPTS) < _MAX_ATTEMPTS)
        .when(F.col(c.STATUS) == "missing", ~F.col(_LACKING))
        .otherwise(F.lit(True))
    )
    # A content without any vector row may have been interrupted before the last of its tables was written.
    full = F.col(c.STATUS).isNull() | F.col("have").isNull() | again
    missing = F.array_except(wanted, "have")
    state = state.withColumn(FULL, full).withColumn(_WANTED, F.when(full, wanted).otherwise(missing))
    state = state.where(F.col(FULL) | (F.size(_WANTED) > 0))
    return state.select(WORK, c.URI, c.SIZE, _WANTED, FULL, c.ATTEMPTS, *_FACTS)


_FACTS = (c.DURATION, "width", "height", "gop", "frame_rate", "video_codec", "audio_codec")


def _known(context: Context, items: DataFrame) -> DataFrame:
    """What silver.media knows of each content; of several rows the one with most attempts."""
    media = context.lakehouse.read_or_empty(tables.MEDIA)
    # A file without a hash is known by its place, and its row by its item.
    places = items.where(F.col(WORK).startswith("uri:"))
    places = places.select(F.col(c.ITEM_ID).cast(dict(media.dtypes)[c.ITEM_ID]).alias(c.ITEM_ID), WORK)
    work = F.coalesce(c.CONTENT_HASH, WORK).alias(WORK)
    known = F.max_by(F.struct(c.STATUS, c.RETRYABLE, c.ATTEMPTS, *_FACTS), c.ATTEMPTS).alias("known")
    return media.join(places, c.ITEM_ID, "left").groupBy(work).agg(known).select(WORK, "known.*")


def _have(context: Context, encoders: list[Encoder[Any]]) -> DataFrame:
    """Which of the encoders have read each content that any has read."""
    features = context.lakehouse.read_or_empty(tables.ITEM_FEATURES).where(F.col(c.MODALITY) != texts.TEXT)
    current = F.when(_made_by(encoders), F.col(c.ENCODER))
    return features.groupBy(F.col(c.INPUT_HASH).alias(WORK)).agg(F.collect_set(current).alias("have"))


def _made_by(encoders: list[Encoder[Any]]) -> Column:
    """Whether a row of gold.item_features comes from one of these very encoders."""
    conditions = [
        reduce(and_, (F.col(name) == value for name, value in rows.provenance(encoder).items())) for encoder in encoders
    ]
    return reduce(or_, conditions, F.lit(False))


# -- waves -----------------------------------------------------------------------------------------------------------


@dataclass
class _Cost:
    """Core-seconds of a run, as predicted and as they were."""

    predicted: float = 0.0
    actual: float = 0.0
    files: int = 0


@dataclass
class _Wave:
    """Files that are described and committed together, and their estimated core-seconds."""

    files: list[Row]
    seconds: list[float]

    @property
    def all_new(self) -> bool:
        """Whether no table holds a row of them."""
        return all(row[FULL] and row[c.ATTEMPTS] is None for row in self.files)


def _describe_new(context: Context, items: DataFrame, encoders: list[Encoder[Any]]) -> int:
    """Decode and encode what is new, wave by wave; returns the number of files opened."""
    todo = _todo(context, items, encoders)
    page = _page(todo, after="")
    if not page:
        return 0
    model = _cost_model(context)
    total = todo.count() if len(page) == _PAGE else len(page)
    context.note(f"{total:,} files to describe with {', '.join(encoder.name for encoder in encoders)}")
    cost = _Cost()
    with context.progress.files(context.job, total, context.spark) as progress:
        while page:
            for wave in _waves(context, page, model):
                _describe_wave(context, items, wave, progress, cost)
            page = _page(todo, after=page[-1][WORK]) if len(page) == _PAGE else []
    context.facts["cost"] = {
        "files": cost.files,
        "predicted_core_seconds": round(cost.predicted, 2),
        "actual_core_seconds": round(cost.actual, 2),
    }
    return cost.files


def _page(todo: DataFrame, after: str) -> list[Row]:
    """So many files as the driver may hold, in the order of their hashes, which is that of chance."""
    return todo.where(F.col(WORK) > after).orderBy(WORK).limit(_PAGE).collect()


def _waves(context: Context, files: list[Row], model: CostModel) -> Iterator[_Wave]:
    settings = context.settings.features
    longest = settings.commit_seconds * context.spark.sparkContext.defaultParallelism
    wave = _Wave([], [])
    for row in files:
        seconds = _predicted(model, _facts(row), settings.range_seconds)
        if wave.files and sum(wave.seconds) + seconds > longest:
            yield wave
            wave = _Wave([], [])
        wave.files.append(row)
        wave.seconds.append(seconds)
    yield wave


def _predicted(model: CostModel, facts: Facts, range_seconds: float) -> float:
    """Of the first range, where it is known that there are more."""
    return model.predict(facts) * min(1.0, range_seconds / facts.seconds if facts.seconds else 1.0)


def _cost_model(context: Context) -> CostModel:
    """Prices learnt on what silver.media says that earlier files have cost."""
    media = context.lakehouse.read_or_empty(tables.MEDIA).where(F.col(c.STATUS).isin(*tables.USABLE))
    media = media.where(F.col(c.SECONDS_SPENT) > 0).select(c.ITEM_ID, *_FACTS, c.SECONDS_SPENT).limit(_LESSONS)
    catalog = context.lakehouse.read(tables.CATALOG).select(c.ITEM_ID, c.SIZE, c.URI)
    lessons = media.join(catalog, c.ITEM_ID).collect()
    return CostModel.learned([_facts(row) for row in lessons], [row[c.SECONDS_SPENT] for row in lessons])


def _facts(row: Row) -> Facts:
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


def _describe_wave(context: Context, items: DataFrame, wave: _Wave, progress: FileProgress, cost: _Cost) -> None:
    """Describe some files and commit what was found.

    First a range of each; then, of the long ones, the others, whose cost is known by now.
    """
    stage = _Stage(context, progress)
    tasks = {row[WORK]: (row[WORK], row[c.URI], row[_WANTED], row[FULL], row[c.ATTEMPTS] or 0) for row in wave.files}
    stage.describe([(*task, 0) for task in tasks.values()], wave.seconds, "first")
    first = stage.read("first").where(F.col(PARTIAL).isNotNull())
    long = first.select(WORK, c.PARTS, c.SECONDS_SPENT).collect()
    whole = ["first"]
    if long:
        ranges = [(row, part) for row in long for part in range(1, row[c.PARTS])]
        seconds = [row[c.SECONDS_SPENT] for row, _ in ranges]
        stage.describe([(*tasks[row[WORK]], part) for row, part in ranges], seconds, "later")
        stage.merge(["first", "later"], "merged")
        whole.append("merged")
        cost.predicted += sum(seconds)
    cost.files += len(wave.files)
    cost.predicted += sum(wave.seconds)
    results = stage.read(*whole).where(F.col(PARTIAL).isNull())
    spent = results.agg(F.sum(c.SECONDS_SPENT), F.sum(F.size("transcripts"))).first()
    cost.actual += float(spent[0] or 0.0) if spent is not None else 0.0
    worded = spent is not None and bool(spent[1])
    _write(context, results.join(F.broadcast(items.select(WORK, c.ITEM_ID)), WORK), wave.all_new, worded)
    stage.remove()


@dataclass
class _Stage:
    """Where results are written down before they are split into tables, so that nothing is computed twice."""

    context: Context
    progress: FileProgress

    def describe(self, files: list[tuple[Any, ...]], seconds: list[float], name: str) -> None:
        """Describe files in tasks of about equal length."""
        settings = self.context.settings.features
        spark = self.context.spark
        tasks = pack(seconds, spark.sparkContext.defaultParallelism, settings.seconds_per_task)
        # A slice an element is a task an element: how the work was packed is how it runs.
        packed = spark.sparkContext.parallelize([[files[n] for n in task] for task in tasks], len(tasks))
        frame = spark.createDataFrame(packed.flatMap(lambda task: task), rows.TASK_SCHEMA)
        encoders = tuple(encoder.name for encoder in _media_encoders(settings))
        self._keep(frame.mapInPandas(self.progress.counted(rows.describing(settings, encoders)), rows.SCHEMA), name)

    def merge(self, names: list[str], name: str) -> None:
        """Put the ranges of each long file together."""
        parts = self.read(*names).where(F.col(PARTIAL).isNotNull())
        self._keep(parts.groupBy(WORK).applyInPandas(rows.merging(self.context.settings.features), rows.SCHEMA), name)

    def read(self, *names: str) -> DataFrame:
        return self.context.spark.read.schema(rows.SCHEMA).parquet(*[self._path(name) for name in names])

    def remove(self) -> None:
        self.context.lakehouse.remove("staging", self.context.run_id, "features")

    def _keep(self, frame: DataFrame, name: str) -> None:
        frame.write.mode("overwrite").parquet(self._path(name))

    def _path(self, name: str) -> str:
        return self.context.lakehouse.path("staging", self.context.run_id, "features", name)


# -- tables ----------------------------------------------------------------------------------------------------------


def _write(context: Context, results: DataFrame, new: bool, worded: bool) -> None:
    """Split the results into the tables; item_features comes last, because its rows say that an item is finished.

    Where all is `new`, rows are simply added, to several tables at once: most of a commit is waiting.
    """
    lakehouse = context.lakehouse
    full = results.where(FULL)
    shots = _exploded(full, "shots", tables.SHOTS)
    segments = _exploded(results, "segments", tables.SEGMENT_FEATURES)
    transcripts = _exploded(results, "transcripts", tables.TRANSCRIPTS)
    features = _exploded(results, "features", tables.ITEM_FEATURES)
    if new:
        added = [(tables.SHOTS, shots), (tables.SEGMENT_FEATURES, segments), (tables.MEDIA, full)]
        added += [(tables.TRANSCRIPTS, transcripts)] if worded else []
        with ThreadPoolExecutor(len(added)) as pool:
            list(pool.map(lambda pair: lakehouse.append(*pair), added))
        lakehouse.append(tables.ITEM_FEATURES, features)
        return
    made = features.select(c.ITEM_ID, c.ENCODER, c.ENCODER_VERSION)
    lakehouse.replace_groups(tables.SHOTS, shots, full.select(c.ITEM_ID))
    lakehouse.replace_groups(tables.SEGMENT_FEATURES, segments, made)
    if worded or lakehouse.exists(tables.TRANSCRIPTS):
        lakehouse.replace_groups(tables.TRANSCRIPTS, transcripts, made)
    lakehouse.merge(tables.MEDIA, full)
    lakehouse.merge(tables.ITEM_FEATURES, features)


def _exploded(results: DataFrame, name: str, table: Table) -> DataFrame:
    return results.select(c.ITEM_ID, F.explode(name).alias("part")).select(
        c.ITEM_ID, *[f"part.`{column}`" for column in table.columns if column != c.ITEM_ID]
    )


def _copy_known(context: Context, items: DataFrame, encoders: list[Encoder[Any]]) -> int:
    """Give items of a known content what other items of that content have; returns how many items."""
    features = context.lakehouse.read(tables.ITEM_FEATURES).where(_made_by(encoders))
    encoded = features.withColumnRenamed(c.INPUT_HASH, WORK)
    mine = encoded.groupBy(c.ITEM_ID, WORK).agg(F.count("*").alias("have")).where(F.col("have") >= len(encoders))
    lacking = items.join(mine, [c.ITEM_ID, WORK], "left_anti").select(c.ITEM_ID, WORK)
    count = lacking.count()
    if count:
        _copy_descriptions(context, lacking)
        _copy_features(context, lacking, encoded)
    return count


def _copy_descriptions(context: Context, lacking: DataFrame) -> None:
    lakehouse = context.lakehouse
    media = lakehouse.read(tables.MEDIA).withColumn(WORK, F.col(c.CONTENT_HASH))
    donors = media.groupBy(WORK).agg(F.min(c.ITEM_ID).alias("donor"))
    undescribed = lacking.join(media.select(c.ITEM_ID, WORK), [c.ITEM_ID, WORK], "left_anti")
    pairs = undescribed.join(donors, WORK).select(c.ITEM_ID, "donor")
    shots = lakehouse.read(tables.SHOTS).withColumnRenamed(c.ITEM_ID, "donor")
    lakehouse.replace_groups(tables.SHOTS, pairs.join(shots, "donor"), pairs.select(c.ITEM_ID))
    known = media.drop(WORK).withColumnRenamed(c.ITEM_ID, "donor")
    lakehouse.merge(tables.MEDIA, pairs.join(known, "donor").withColumn(c.SECONDS_SPENT, F.lit(0.0)))


def _copy_features(context: Context, lacking: DataFrame, encoded: DataFrame) -> None:
    lakehouse = context.lakehouse
    by_encoder = [c.MODALITY, c.ENCODER, c.ENCODER_VERSION]
    donors = encoded.dropDuplicates([WORK, *by_encoder]).withColumnRenamed(c.ITEM_ID, "donor")
    have = encoded.select(c.ITEM_ID, WORK, *by_encoder)
    new = lacking.join(donors, WORK).join(have, [c.ITEM_ID, WORK, *by_encoder], "left_anti")
    pairs = new.select(c.ITEM_ID, "donor", c.ENCODER, c.ENCODER_VERSION)
    for table in filter(lakehouse.exists, (tables.SEGMENT_FEATURES, tables.TRANSCRIPTS)):
        known = lakehouse.read(table).withColumnRenamed(c.ITEM_ID, "donor")
        copied = pairs.join(known, ["donor", c.ENCODER, c.ENCODER_VERSION])
        lakehouse.replace_groups(table, copied, pairs.drop("donor"))
    lakehouse.merge(tables.ITEM_FEATURES, new.withColumnRenamed(WORK, c.INPUT_HASH))


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


def _check(settings: Settings) -> None:
    """Encoders that cannot be made (an unknown name, a missing library) stop the job before Spark starts."""
    registry.in_use(settings.features)


JOB = Job(
    name="features",
    run=run,
    sections=("features",),
    # silver.items is made of bronze.catalog; what is predicted there is not read here.
    reads=(tables.CATALOG,),
    check=_check,
    writes=(tables.MEDIA, tables.SHOTS, tables.TRANSCRIPTS, tables.ITEM_FEATURES, tables.SEGMENT_FEATURES),
    skips=lambda settings: True,
)
