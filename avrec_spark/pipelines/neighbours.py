"""neighbours: for each item the most similar ones, by each modality and by the fusion model → gold.item_neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.pipelines import vectors
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.recommend.topk import nearest

FUSED = "fused"


def run(context: Context) -> Counts:
    features = vectors.in_use(context).persist()
    kinds = sorted(row[0] for row in features.select(c.MODALITY).distinct().collect())
    frames = [_neighbours(context, features.where(F.col(c.MODALITY) == modality), modality) for modality in kinds]
    fused = _fused_vectors(context)
    if fused is not None:
        frames.append(_neighbours(context, fused, FUSED))
    if not frames:
        return {"rows_out": 0}
    all_kinds = frames[0]
    for frame in frames[1:]:
        all_kinds = all_kinds.unionByName(frame)
    context.lakehouse.replace(tables.ITEM_NEIGHBOURS, all_kinds)
    features.unpersist()
    return {"rows_out": context.lakehouse.read(tables.ITEM_NEIGHBOURS).count(), "kinds": len(frames)}


def _fused_vectors(context: Context) -> DataFrame | None:
    """The item vectors of the latest fusion model, if one has been trained."""
    if not context.lakehouse.exists(tables.ITEM_EMBEDDINGS):
        return None
    embeddings = context.lakehouse.read(tables.ITEM_EMBEDDINGS)
    latest = context.lakehouse.read(tables.MODELS).where(F.col(c.MODEL) == "fusion")
    version = latest.orderBy(F.col(c.RECORDED_AT).desc()).select(c.RUN_ID).first()
    return embeddings.where(F.col(c.MODEL_VERSION) == version[0]) if version is not None else None


def _neighbours(context: Context, rows: DataFrame, kind: str) -> DataFrame:
    """The k nearest items by the cosine of centred vectors.

    The matrix of all vectors is broadcast; each task ranks a block of items.
    """
    k = context.settings.neighbours.k
    everything = rows.select(c.ITEM_ID, c.VECTOR).toPandas().sort_values(c.ITEM_ID)
    ids, matrix = everything[c.ITEM_ID].to_numpy(), np.stack(everything[c.VECTOR].tolist()).astype(np.float32)
    # What all items have in common says nothing of which are alike, and makes hubs that are near to everything
    # (Mu and Viswanath, All-but-the-Top, ICLR 2018).
    matrix -= matrix.mean(axis=0)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    shared = context.spark.sparkContext.broadcast((ids, matrix))
    item_type = dict(rows.dtypes)[c.ITEM_ID]

    def rank(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        ids, matrix = shared.value
        for batch in batches:
            block = batch["id"].to_numpy()
            indices, similarities = nearest(matrix, block, k)
            found = indices >= 0
            yield pd.DataFrame(
                {
                    c.ITEM_ID: np.repeat(ids[block], found.sum(axis=1)),
                    c.KIND: kind,
                    c.RANK: (np.nonzero(found)[1] + 1).astype(np.int32),
                    c.NEIGHBOUR_ID: ids[indices[found]],
                    c.SIMILARITY: similarities[found].astype(np.float64),
                }
            )

    schema = (
        f"{c.ITEM_ID} {item_type}, {c.KIND} string, {c.RANK} int, {c.NEIGHBOUR_ID} {item_type}, {c.SIMILARITY} double"
    )
    tasks = min(context.spark.sparkContext.defaultParallelism, max(1, len(ids) // 1000))
    return context.spark.range(0, len(ids), 1, tasks).mapInPandas(rank, schema)


JOB = Job(
    name="neighbours",
    run=run,
    sections=("neighbours", "features"),
    reads=(tables.ITEM_FEATURES, tables.ITEM_EMBEDDINGS),
)
