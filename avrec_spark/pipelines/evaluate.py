"""evaluate: every model of the run on validation and test → ops.metrics and MLflow.

All items are ranked for every user of a part, the user's train items removed; validation decides about promotion,
test is only reported.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import TEST, VALIDATION
from avrec_spark.evaluation import executors
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.scoring import recommend_in_spark

Metrics = dict[str, dict[str, float]]


def run(context: Context) -> Counts:
    models = context.lakehouse.read(tables.MODELS).where(F.col(c.RUN_ID) == context.run_id).collect()
    truths = {snapshot: _truths(context, snapshot) for snapshot in {model[c.SNAPSHOT_ID] for model in models}}
    rows: list[tuple[str, str, str, str, float, float, float]] = []
    for model in models:
        recommender = Recommender.load(context.tracking.download(model[c.MODEL_URI]) / "artifacts" / "model")
        for split, metrics in _evaluate(context, recommender, truths[model[c.SNAPSHOT_ID]]).items():
            rows += [
                (context.run_id, model[c.MODEL], split, name, value[c.MEAN], value[c.LOW], value[c.HIGH])
                for name, value in metrics.items()
            ]
            flat = {f"{split}.{model[c.MODEL]}.{name}": value[c.MEAN] for name, value in metrics.items()}
            context.tracking.log_metrics(context.mlflow_id, flat)
    for parts in truths.values():
        for part in parts.values():
            part.unpersist()
    columns = ", ".join(f"{name} {kind}" for name, kind in tables.METRICS.columns.items())
    context.lakehouse.merge(tables.METRICS, context.spark.createDataFrame(rows, columns))
    return {"models": len(models), "rows_out": len(rows)}


def _truths(context: Context, snapshot_id: str) -> dict[str, DataFrame]:
    """The held-out pairs of a snapshot by part, kept for all models."""
    row = context.lakehouse.read(tables.SNAPSHOTS).where(F.col(c.SNAPSHOT_ID) == snapshot_id).first()
    assert row is not None
    return {split: _part(context, row["path"], split).persist() for split in (VALIDATION, TEST)}


def _evaluate(context: Context, recommender: Recommender, truths: dict[str, DataFrame]) -> dict[str, Metrics]:
    """The figures of each part. A user's list is the same for both: only train items are left out of it."""
    settings = context.settings.evaluate
    executor = executors.create(settings.executor)
    users = truths[VALIDATION].union(truths[TEST]).select(c.USER_ID).distinct()
    lists = recommend_in_spark(recommender, users, max(settings.ks), context.spark.sparkContext.defaultParallelism)
    lists = lists.select(*c.RECOMMENDATIONS).persist()
    metrics = {}
    for split, truth in truths.items():
        # The numpy executor holds lists and truth on the driver: it is for catalogues of one machine.
        inputs = (lists.toPandas(), truth.toPandas()) if settings.executor == "numpy" else (lists, truth)
        metrics[split] = executor(*inputs, settings.ks, len(recommender.items), settings.bootstrap_samples)
    lists.unpersist()
    return metrics


def _part(context: Context, path: str, split: str) -> DataFrame:
    """user_id and item_id of one part of a snapshot."""
    read = context.spark.read.parquet
    pairs = read(f"{path}/{split}").join(F.broadcast(read(f"{path}/users")), c.USER_INDEX)
    return pairs.join(F.broadcast(read(f"{path}/items")), c.ITEM_INDEX).select(c.USER_ID, c.ITEM_ID)


JOB = Job(name="evaluate", run=run, sections=("evaluate",), reads=(tables.MODELS, tables.SNAPSHOTS))
