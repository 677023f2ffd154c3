"""features: one pass over each new file → silver.media, silver.shots, gold.item_features, gold.segment_features.

A file is known by its content hash: what has been decoded with the same encoders before is not opened again, and two
items of one content share one decode. Every present item ends with a row in silver.media and one an encoder in
gold.item_features; where there is nothing to encode the vector is null and the status says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder, pooled
from avrec_spark.media.cost import estimate_seconds
from avrec_spark.media.records import DecodedMedia, Limits
from avrec_spark.media.watchdog import Decoder
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.tables import Table

TEXT = "text"
# What identifies a decode: the content where it could be read, else the URI.
_WORK = "work"
_LACKING = "lacking"
_MEDIA = {name: kind for name, kind in tables.MEDIA.columns.items() if name != c.ITEM_ID}
_SHOTS = {name: kind for name, kind in tables.SHOTS.columns.items() if name != c.ITEM_ID}
_FEATURES = {name: kind for name, kind in tables.ITEM_FEATURES.columns.items() if name != c.ITEM_ID}
_SEGMENTS = {name: kind for name, kind in tables.SEGMENT_FEATURES.columns.items() if name != c.ITEM_ID}


def _struct(columns: dict[str, str]) -> str:
    return "array<struct<" + ", ".join(f"`{name}`: {kind}" for name, kind in columns.items()) + ">>"


_RESULT = (
    f"{_WORK} string, "
    + ", ".join(f"`{name}` {kind}" for name, kind in _MEDIA.items())
    + f", shots {_struct(_SHOTS)}, features {_struct(_FEATURES)}, segments {_struct(_SEGMENTS)}"
)


def run(context: Context) -> Counts:
    items = _items(context).persist()
    decoded = _decode_new(context, items)
    texts = _encode_new_texts(context)
    refused = _refused(context, items)
    quarantined = context.quarantine(refused)
    rows_in = items.count()
    items.unpersist()
    return {
        "rows_in": rows_in,
        "rows_out": rows_in - quarantined,
        "quarantined": quarantined,
        "files_decoded": decoded,
        "texts_encoded": texts,
    }


def _items(context: Context) -> DataFrame:
    catalog = context.lakehouse.read(tables.CATALOG).where(F.col(c.STATUS) != tables.GONE)
    work = F.coalesce(c.CONTENT_HASH, F.concat(F.lit("uri:"), c.URI))
    return catalog.select(
        c.ITEM_ID, c.URI, c.SIZE, work.alias(_WORK), (F.col(c.STATUS) == tables.MISSING).alias(_LACKING)
    )


# -- media -----------------------------------------------------------------------------------------------------------


def _decode_new(context: Context, items: DataFrame) -> int:
    """Decode and encode what is new, and write it; returns the number of files opened."""
    settings = context.settings.features
    encoders = [encoder for encoder in _encoders(settings) if encoder.modality != TEXT]
    todo = _without_finished(context, items, encoders).persist()
    files = todo.groupBy(_WORK).agg(F.min(c.URI).alias(c.URI), F.first(c.SIZE).alias(c.SIZE)).persist()
    count = files.count()
    if count:
        context.note(f"{count:,} files to decode with {', '.join(encoder.name for encoder in encoders)}")
        # The result is written down before it is split into tables: an expensive stage must not be computed twice.
        place = ("staging", context.run_id, "features")
        staging = context.lakehouse.path(*place)
        _packed(files, settings).mapInPandas(_kernel(settings), _RESULT).write.mode("overwrite").parquet(staging)
        results = context.spark.read.parquet(staging).join(todo.select(_WORK, c.ITEM_ID), _WORK)
        _write(context, results)
        context.lakehouse.remove(*place)
    todo.unpersist()
    files.unpersist()
    return count


def _encoders(settings: FeatureSettings) -> list[Encoder]:
    return [registry.create(name, settings) for name in settings.encoders]


def _without_finished(context: Context, items: DataFrame, encoders: list[Encoder]) -> DataFrame:
    """Items of which some encoder's row for this very content is absent, or whose failure a retry may mend."""
    if not context.lakehouse.exists(tables.ITEM_FEATURES):
        return items
    wanted = context.spark.createDataFrame(
        [(e.modality, e.name, e.version, e.parameters_hash) for e in encoders],
        f"{c.MODALITY} string, {c.ENCODER} string, {c.ENCODER_VERSION} string, {c.PARAMETERS_HASH} string",
    )
    features = context.lakehouse.read(tables.ITEM_FEATURES)
    have = (
        features.join(F.broadcast(wanted), [c.MODALITY, c.ENCODER, c.ENCODER_VERSION, c.PARAMETERS_HASH])
        .groupBy(c.ITEM_ID, F.col(c.INPUT_HASH).alias(_WORK))
        .agg(F.count("*").alias("have"))
        .where(F.col("have") >= len(encoders))
    )
    before = context.lakehouse.read(tables.MEDIA).select(c.ITEM_ID, c.STATUS, c.RETRYABLE)
    # A retry is due, unless the catalogue has just seen that the file is still not there.
    settled = ~F.col(c.RETRYABLE) | (F.col(_LACKING) & (F.col(c.STATUS) == "missing"))
    finished = items.join(have, [c.ITEM_ID, _WORK]).join(before, c.ITEM_ID).where(settled)
    return items.join(finished.select(c.ITEM_ID), c.ITEM_ID, "left_anti")


def _packed(files: DataFrame, settings: FeatureSettings) -> DataFrame:
    """Files spread over tasks of about equal estimated length, each at least `seconds_per_task`.

    Starting a Python task costs as much as decoding a short clip, so few long tasks beat many short ones; but all
    slots should be busy.
    """
    spark = files.sparkSession
    cost = F.udf(lambda size: estimate_seconds(size or 0), DoubleType())
    estimated = files.withColumn("cost", cost(c.SIZE))
    total = estimated.agg(F.sum("cost")).first()
    seconds = float(total[0]) if total is not None else 0.0
    slots = spark.sparkContext.defaultParallelism
    tasks = max(1, int(seconds / settings.seconds_per_task))
    tasks = max(slots, tasks - tasks % slots) if tasks >= slots else tasks
    # Deal the files out like cards, most expensive first.
    dealt = estimated.withColumn("task", (F.expr("row_number() OVER (ORDER BY cost DESC, work)") - 1) % tasks)
    return dealt.repartitionByRange(tasks, "task").select(_WORK, c.URI)


def _kernel(settings: FeatureSettings):  # type: ignore[no-untyped-def]
    """The function that a task runs: one decoder and one set of encoders for all its files."""

    def decode_and_encode(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        _one_thread()
        encoders = [
            encoder
            for encoder in (registry.create(name, settings, _device()) for name in settings.encoders)
            if encoder.modality != TEXT
        ]
        with Decoder(Limits.of(settings)) as decoder:
            for batch in batches:
                for work, uri in batch[[_WORK, c.URI]].itertuples(index=False):
                    yield pd.DataFrame([_result(work, decoder.decode(uri), encoders)])

    return decode_and_encode


def _one_thread() -> None:
    """A task has one core; encoders that took more would wait for each other."""
    import torch

    torch.set_num_threads(1)


def _device() -> str:
    """The GPU that Spark gave to this task, or the CPU."""
    task = TaskContext.get()
    gpus = task.resources().get("gpu") if task is not None else None
    return f"cuda:{gpus.addresses[0]}" if gpus is not None and gpus.addresses else "cpu"


def _result(work: str, media: DecodedMedia, encoders: list[Encoder]) -> dict[str, object]:
    """One file as one row of `_RESULT`."""
    row: dict[str, object] = {name: value for name, value in asdict(media.info).items() if name in _MEDIA}
    row |= {name: getattr(media, name) for name in (c.STATUS, c.REASON, c.DETAIL, c.RETRYABLE)}
    row |= {name: getattr(media, name) for name in (c.FRAMES_DECODED, c.SECONDS_DECODED, c.SECONDS_SPENT)}
    shots = [{c.SHOT: number, **asdict(shot)} for number, shot in enumerate(media.shots)]
    features, segments = [], []
    for encoder in encoders:
        feature, parts = _encode(work, media, encoder)
        features.append(feature)
        segments.extend(parts)
    content_hash = None if work.startswith("uri:") else work
    lists = {"shots": shots, "features": features, "segments": segments}
    return {_WORK: work, c.CONTENT_HASH: content_hash} | row | lists


def _encode(work: str, media: DecodedMedia, encoder: Encoder) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The feature row of one file and encoder, and its segment rows."""
    provenance = _provenance(encoder) | {c.INPUT_HASH: work}
    feature = provenance | {
        c.DIMENSION: encoder.dimension,
        c.VECTOR: None,
        c.FRAMES_DECODED: media.frames_decoded,
        c.SECONDS_DECODED: media.seconds_decoded,
        c.STATUS: "absent" if media.status in tables.USABLE else media.status,
    }
    signal = media.frames if encoder.modality == "visual" else media.audio
    if len(signal) == 0:
        return feature, []
    segments = encoder.encode_segments([signal])[0] if encoder.segmented else None
    vector = encoder.encode([signal])[0] if segments is None else pooled(segments)
    if not vector.any():
        # Zeros are an encoder's way to say that there is nothing to describe, such as silence.
        return feature, []
    feature |= {c.VECTOR: vector.tolist(), c.STATUS: "ok"}
    return feature, [
        provenance | {c.SEGMENT: number, c.START: float(start), c.VECTOR: part.tolist()}
        for number, (start, part) in enumerate(
            zip(media.frame_times, [] if segments is None else segments, strict=False)
        )
    ]


def _provenance(encoder: Encoder) -> dict[str, Any]:
    return {
        c.MODALITY: encoder.modality,
        c.ENCODER: encoder.name,
        c.ENCODER_VERSION: encoder.version,
        c.PARAMETERS_HASH: encoder.parameters_hash,
    }


def _write(context: Context, results: DataFrame) -> None:
    """Split the results into the tables; item_features comes last, because its rows say that an item is finished."""
    touched = results.select(c.ITEM_ID)

    def exploded(name: str, table: Table) -> DataFrame:
        return results.select(c.ITEM_ID, F.explode(name).alias("part")).select(
            c.ITEM_ID, *[f"part.`{column}`" for column in table.columns if column != c.ITEM_ID]
        )

    context.lakehouse.merge(tables.MEDIA, results)
    context.lakehouse.replace_groups(tables.SHOTS, exploded("shots", tables.SHOTS), touched)
    segments = exploded("segments", tables.SEGMENT_FEATURES)
    encoders = segments.select(c.ITEM_ID, c.ENCODER, c.ENCODER_VERSION)
    context.lakehouse.replace_groups(tables.SEGMENT_FEATURES, segments, encoders)
    context.lakehouse.merge(tables.ITEM_FEATURES, exploded("features", tables.ITEM_FEATURES))


# -- text ------------------------------------------------------------------------------------------------------------


def _encode_new_texts(context: Context) -> int:
    """Encode title and description of the items whose words are new; returns how many."""
    settings = context.settings.features
    encoders = [encoder for encoder in _encoders(settings) if encoder.modality == TEXT]
    items = context.lakehouse.read(tables.ITEMS)
    count = 0
    for encoder in encoders:
        words = F.concat_ws(". ", c.TITLE, c.DESCRIPTION, F.array_join(c.TAGS, ", "))
        texts = items.select(c.ITEM_ID, words.alias("words")).withColumn(c.INPUT_HASH, F.sha2("words", 256))
        new = _without_encoded(context, texts, encoder).persist()
        found = new.count()
        if found:
            item_type = dict(items.dtypes)[c.ITEM_ID]
            columns = ", ".join(f"`{name}` {kind}" for name, kind in _FEATURES.items())
            rows = new.repartition(_text_tasks(context, found)).mapInPandas(
                _text_kernel(settings, encoder.name), f"{c.ITEM_ID} {item_type}, {columns}"
            )
            context.lakehouse.merge(tables.ITEM_FEATURES, rows)
        new.unpersist()
        count += found
    return count


def _without_encoded(context: Context, texts: DataFrame, encoder: Encoder) -> DataFrame:
    if not context.lakehouse.exists(tables.ITEM_FEATURES):
        return texts
    have = context.lakehouse.read(tables.ITEM_FEATURES).where(
        (F.col(c.ENCODER) == encoder.name)
        & (F.col(c.ENCODER_VERSION) == encoder.version)
        & (F.col(c.PARAMETERS_HASH) == encoder.parameters_hash)
    )
    return texts.join(have.select(c.ITEM_ID, c.INPUT_HASH), [c.ITEM_ID, c.INPUT_HASH], "left_anti")


def _text_tasks(context: Context, texts: int) -> int:
    """About 10 ms a text, and at least as long as it takes to load the model."""
    return int(min(context.spark.sparkContext.defaultParallelism, max(1, texts // 100)))


def _text_kernel(settings: FeatureSettings, name: str):  # type: ignore[no-untyped-def]
    def encode(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        _one_thread()
        encoder = registry.create(name, settings, _device())
        for batch in batches:
            filled = batch["words"] != ""
            rows = pd.DataFrame({c.ITEM_ID: batch[c.ITEM_ID], c.INPUT_HASH: batch[c.INPUT_HASH]})
            said = _provenance(encoder) | {c.DIMENSION: encoder.dimension, c.STATUS: "absent"}
            rows = rows.assign(**said)
            rows[[c.VECTOR, c.FRAMES_DECODED, c.SECONDS_DECODED]] = None
            if filled.any():
                rows.loc[filled, c.STATUS] = "ok"
                vectors = encoder.encode(batch.loc[filled, "words"].tolist())
                rows.loc[filled, c.VECTOR] = pd.Series(list(vectors), index=rows.index[filled])
            yield rows[[c.ITEM_ID, *_FEATURES]]

    return encode


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
)
