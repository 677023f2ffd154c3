"""`avrec find`: items of the lakehouse that fit a text, or a media file, by a space that modalities share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, session, tables
from avrec_spark.describe import Describer, Task
from avrec_spark.encoders import registry
from avrec_spark.errors import DataError, UsageError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.models.fusion.crossmodal import SharedSpace
from avrec_spark.pipelines import starting, vectors
from avrec_spark.pipelines.job import Context
from avrec_spark.progress import Progress
from avrec_spark.tracking import Tracking

Query = dict[str, NDArray[np.float32]]


def find(
    settings: config.Settings, text: str | None, file: str | None, among: Sequence[str], model: str, k: int
) -> pd.DataFrame:
    """The k items that fit best: item_id, title, rank, score. `model` is what `train.start.model` may name."""
    query = of_text(settings.features, text) if text is not None else of_file(settings.features, str(file))
    spark = session.get(settings.spark)
    lakehouse = Lakehouse(spark, settings.lakehouse.root)
    context = Context(settings, "", "find", spark, lakehouse, Tracking(settings.tracking, lakehouse.root), Progress())
    learnt = starting.find(context, model)
    if learnt is None:
        raise UsageError(
            "No fusion model has been trained yet.", "Run the job pretrain, and name its run: --model RUN."
        )
    features = vectors.in_use(context).select(c.MODALITY, c.ITEM_ID, c.VECTOR).toPandas()
    space = SharedSpace.of(learnt, {str(name): rows for name, rows in features.groupby(c.MODALITY)})
    known = {name: rows for name, rows in query.items() if name in space.encoder.widths}
    found = space.search(known or query, k, among)
    titles = lakehouse.read_or_empty(tables.ITEMS).where(F.col(c.ITEM_ID).isin(found[c.ITEM_ID].tolist()))
    titled = titles.select(c.ITEM_ID, c.TITLE).toPandas()
    return found.merge(titled, on=c.ITEM_ID, how="left")[[c.RANK, c.ITEM_ID, c.TITLE, c.SCORE]]


def of_text(settings: config.FeatureSettings, text: str) -> Query:
    """The vector of a text by the text encoder in use. Raises `UsageError` where none is in use, or the text is empty.

    >>> of_text(config.FeatureSettings(encoders=("palette",)), "a red car")
    Traceback (most recent call last):
    avrec_spark.errors.UsageError: No encoder in use reads text. Add one to features.encoders, e.g. e5-text.
    """
    encoders = [encoder for encoder in registry.in_use(settings) if encoder.reads == "text"]
    if not encoders:
        raise UsageError("No encoder in use reads text.", "Add one to features.encoders, e.g. e5-text.")
    if all(encoder.is_empty(text) for encoder in encoders):
        raise UsageError("The text is empty.", "Say what to look for.")
    return {encoder.modality: encoder.encode([text]) for encoder in encoders}


def of_file(settings: config.FeatureSettings, file: str) -> Query:
    """The vectors of a media file by the encoders in use; of a long one, of its first range.

    Raises `DataError` where it cannot be decoded, or none of them finds anything in it.
    """
    names = tuple(encoder.name for encoder in registry.in_use(settings) if encoder.reads != "text")
    with Describer(settings, names) as describer:
        (found,) = describer.describe([Task(file, file, names, full=False)])
        encoders = describer.encoders
    if found.media.status not in tables.USABLE:
        why = str(found.media.detail or found.media.reason or found.media.status).rstrip(".")
        raise DataError(f"{file} cannot be used: {why}.", "Give another file.")
    query = {
        encoders[name].modality: encoders[name].vectors(summary.total[None])
        for name, summary in found.summaries.items()
        if summary is not None
    }
    if not query:
        raise DataError(f"No encoder in use finds anything in {file}.", f"In use are {', '.join(names) or 'none'}.")
    return query
