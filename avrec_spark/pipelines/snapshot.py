"""snapshot: Delta tables → a versioned Parquet training set, split and indexed.

Training reads files that never change: the snapshot's id is a hash of the Delta versions and settings it came from,
so the same tables give the same snapshot, and ops.snapshots says how to make it again.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.config import SnapshotSettings
from avrec_spark.dataset.index import IdIndex
from avrec_spark.dataset.splits import TEST, TRAIN, VALIDATION, Split
from avrec_spark.errors import DataError
from avrec_spark.pipelines import splitting, vectors
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.preferences import preferences


def run(context: Context) -> Counts:
    settings = context.settings.snapshot
    versions = {table.full_name: context.lakehouse.version(table) for table in JOB.reads}
    recipe = json.dumps(
        {"versions": versions, "settings": settings.model_dump(mode="json"), "encoders": vectors.origins(context)},
        sort_keys=True,
    )
    snapshot_id = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    path = context.lakehouse.path("snapshots", snapshot_id)

    pairs = preferences(context.lakehouse.read(tables.INTERACTIONS))
    pairs = pairs.withColumn(c.TIMESTAMP, F.col(c.TIMESTAMP).cast("double")).persist()
    features = vectors.in_use(context)
    users = _index(pairs, c.USER_ID, settings.seed)
    items = _index(pairs.select(c.ITEM_ID).union(features.select(c.ITEM_ID)), c.ITEM_ID, settings.seed)
    if len(users) == 0:
        raise DataError(
            "No interaction expresses a preference, so there is nothing to train on.",
            "Look at ops.quarantine and at events.weights: views, likes and the like need a weight above 0.",
        )
    user_frame = _index_frame(context, users, c.USER_ID, c.USER_INDEX, dict(pairs.dtypes)[c.USER_ID])
    item_frame = _index_frame(context, items, c.ITEM_ID, c.ITEM_INDEX, dict(pairs.dtypes)[c.ITEM_ID])
    split = (
        splitting.split(pairs, _how(settings))
        .join(F.broadcast(user_frame), c.USER_ID)
        .join(F.broadcast(item_frame), c.ITEM_ID)
    )
    split = split.select(c.USER_INDEX, c.ITEM_INDEX, F.col(c.WEIGHT).cast("float"), c.TIMESTAMP, c.SPLIT).persist()

    parts = {name: split.where(F.col(c.SPLIT) == name).drop(c.SPLIT) for name in (TRAIN, VALIDATION, TEST)}
    rows = {name: part.count() for name, part in parts.items()}
    _write(parts[TRAIN], f"{path}/train", settings.row_groups)
    for name in (VALIDATION, TEST):
        _write(parts[name], f"{path}/{name}", 1)
    _write(user_frame, f"{path}/users", 1)
    _write(item_frame, f"{path}/items", 1)
    for modality in [row[0] for row in features.select(c.MODALITY).distinct().collect()]:
        of_modality = features.where(F.col(c.MODALITY) == modality).join(F.broadcast(item_frame), c.ITEM_ID)
        _write(of_modality.select(c.ITEM_INDEX, c.VECTOR), f"{path}/features/{modality}", 1)
    pairs.unpersist()
    split.unpersist()

    _record(context, snapshot_id, path, versions, recipe, rows)
    return {"rows_in": sum(rows.values()), "rows_out": sum(rows.values()), "users": len(users), "items": len(items)} | {
        f"{name}_rows": count for name, count in rows.items()
    }


def _index(frame: DataFrame, column: str, seed: int) -> IdIndex:
    # Ids of a catalogue fit the driver's memory well beyond the point where factors would.
    return IdIndex.from_ids(frame.select(column).distinct().toPandas()[column].to_numpy(), seed)


def _index_frame(context: Context, index: IdIndex, id_name: str, index_name: str, id_type: str) -> DataFrame:
    frame = pd.DataFrame({index_name: np.arange(len(index), dtype=np.int64), id_name: index.ids})
    return context.spark.createDataFrame(frame, f"{index_name} bigint, {id_name} {id_type}")


def _how(settings: SnapshotSettings) -> Split:
    return Split(
        settings.split,
        settings.validation_share,
        settings.test_share,
        settings.last_n,
        settings.folds,
        settings.fold,
        settings.seed,
    )


def _write(frame: DataFrame, path: str, files: int) -> None:
    # One row group a file: a rank reads whole row groups, so there must be enough of them, of about equal size.
    frame.repartition(files).write.mode("overwrite").parquet(path)


def _record(
    context: Context, snapshot_id: str, path: str, versions: dict[str, int | None], recipe: str, rows: dict[str, int]
) -> None:
    schema = (
        f"{c.SNAPSHOT_ID} string, {c.RUN_ID} string, path string, table_versions map<string,bigint>, "
        "settings string, rows map<string,bigint>"
    )
    row = (snapshot_id, context.run_id, path, versions, recipe, rows)
    frame = context.spark.createDataFrame([row], schema).withColumn(c.RECORDED_AT, F.current_timestamp())
    context.lakehouse.merge(tables.SNAPSHOTS, frame)


JOB = Job(
    name="snapshot",
    run=run,
    sections=("snapshot", "features"),
    reads=(tables.INTERACTIONS, tables.ITEM_FEATURES),
)
