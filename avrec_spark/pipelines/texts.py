"""The words of an item (title, description, tags, what is said and shown in it) → gold.item_features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import device, tables
from avrec_spark.config import FeatureSettings
from avrec_spark.describe import one_thread
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder
from avrec_spark.pipelines.job import Context
from avrec_spark.pipelines.rows import provenance

TEXT = "text"
WORDS = "words"
_FEATURES = {name: kind for name, kind in tables.ITEM_FEATURES.columns.items() if name != c.ITEM_ID}


def encode_new(context: Context) -> int:
    """Encode the words of the items that have new ones; returns how many."""
    settings = context.settings.features
    encoders = [encoder for encoder in registry.in_use(settings) if encoder.reads == TEXT]
    if not encoders:
        return 0
    texts = _texts(context)
    return sum(_encode_with(context, texts, encoder) for encoder in encoders)


def _encode_with(context: Context, texts: DataFrame, encoder: Encoder[Any]) -> int:
    new = _without_encoded(context, texts, encoder)
    found = new.agg(F.count("*"), F.count(c.ENCODER)).first()
    count, known = (found[0], found[1]) if found is not None else (0, 0)
    if count:
        item_type = dict(texts.dtypes)[c.ITEM_ID]
        columns = ", ".join(f"`{name}` {kind}" for name, kind in _FEATURES.items())
        rows = new.select(c.ITEM_ID, WORDS, c.INPUT_HASH).repartition(_tasks(context, count))
        rows = rows.mapInPandas(
            _encoding(context.settings.features, encoder.name), f"{c.ITEM_ID} {item_type}, {columns}"
        )
        write = context.lakehouse.merge if known else context.lakehouse.append
        write(tables.ITEM_FEATURES, rows)
    return int(count)


def _texts(context: Context) -> DataFrame:
    """(item_id, words, input_hash) of every item."""
    return words(context).withColumn(c.INPUT_HASH, F.sha2(WORDS, 256))


def words(context: Context, tags: bool = True) -> DataFrame:
    """(item_id, words): declared words first, with or without the tags, then those heard and read by the encoders in
    use.
    """
    items = context.lakehouse.read(tables.ITEMS)
    heard = context.lakehouse.read_or_empty(tables.TRANSCRIPTS)
    in_use = [(encoder.name, encoder.version) for encoder in registry.in_use(context.settings.features)]
    current = context.spark.createDataFrame(in_use, f"{c.ENCODER} string, {c.ENCODER_VERSION} string")
    heard = heard.join(F.broadcast(current), [c.ENCODER, c.ENCODER_VERSION], "left_semi")
    ordered = F.array_sort(F.collect_list(F.struct(c.ENCODER, c.SEGMENT, c.TEXT)))
    heard = heard.groupBy(F.col(c.ITEM_ID).cast(dict(items.dtypes)[c.ITEM_ID]).alias(c.ITEM_ID)).agg(
        F.array_join(F.transform(ordered, lambda part: part[c.TEXT]), " ").alias("heard")
    )
    declared = [c.TITLE, c.DESCRIPTION] + ([F.array_join(c.TAGS, ", ")] if tags else [])
    said = F.concat_ws(". ", *declared, "heard")
    return items.join(heard, c.ITEM_ID, "left").select(c.ITEM_ID, said.alias(WORDS))


def _without_encoded(context: Context, texts: DataFrame, encoder: Encoder[Any]) -> DataFrame:
    """Items whose words this very encoder has not read; `encoder` is null where the item has no row of its version."""
    have = context.lakehouse.read_or_empty(tables.ITEM_FEATURES).where(
        (F.col(c.ENCODER) == encoder.name) & (F.col(c.ENCODER_VERSION) == encoder.version)
    )
    same = F.col("read") == F.col(c.INPUT_HASH)
    current = F.col(c.PARAMETERS_HASH) == encoder.parameters_hash
    have = have.select(
        F.col(c.ITEM_ID).cast(dict(texts.dtypes)[c.ITEM_ID]).alias(c.ITEM_ID),
        F.col(c.INPUT_HASH).alias("read"),
        c.ENCODER,
        c.PARAMETERS_HASH,
    )
    return texts.join(have, c.ITEM_ID, "left").where(F.col(c.ENCODER).isNull() | ~(same & current))


def _tasks(context: Context, texts: int) -> int:
    """About 10 ms a text, and at least as long as it takes to load the model."""
    return int(min(context.spark.sparkContext.defaultParallelism, max(1, texts // 100)))


def _encoding(settings: FeatureSettings, name: str):  # type: ignore[no-untyped-def]
    def encode(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        one_thread()
        encoder = registry.create(name, settings, device.of_task())
        for batch in batches:
            filled = batch[WORDS] != ""
            rows = pd.DataFrame({c.ITEM_ID: batch[c.ITEM_ID], c.INPUT_HASH: batch[c.INPUT_HASH]})
            said = provenance(encoder) | {c.DIMENSION: encoder.dimension, c.STATUS: "absent"}
            rows = rows.assign(**said)
            rows[[c.VECTOR, c.FRAMES_DECODED, c.SECONDS_DECODED, c.REASON]] = None
            if filled.any():
                rows.loc[filled, c.STATUS] = "ok"
                vectors = encoder.encode(batch.loc[filled, WORDS].tolist())
                rows.loc[filled, c.VECTOR] = pd.Series(list(vectors), index=rows.index[filled])
            yield rows[[c.ITEM_ID, *_FEATURES]]

    return encode
