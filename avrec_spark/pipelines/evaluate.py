"""evaluate: every model of the run on validation and test → ops.metrics, ops.comparisons and MLflow.

All items are ranked for every user of a part, the user's train items removed; validation decides about promotion, test
is only reported: there each model is also compared with the best, paired by user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import TEST
from avrec_spark.evaluation import executors
from avrec_spark.evaluation.bootstrap import Metrics
from avrec_spark.evaluation.significance import against_best
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines import held_out
from avrec_spark.pipelines.held_out import HeldOut
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.scoring import recommend_in_spark


def run(context: Context) -> Counts:
    models = context.lakehouse.read(tables.MODELS).where(F.col(c.RUN_ID) == context.run_id).collect()
    known = {name: held_out.read(context, name) for name in {model[c.SNAPSHOT_ID] for model in models}}
    rows: list[tuple[Any, ...]] = []
    users: dict[str, pd.DataFrame] = {}
    for model in models:
        recommender = Recommender.load(context.tracking.download(model[c.MODEL_URI]) / "artifacts" / "model")
        metrics, users[model[c.MODEL]] = measure(context, recommender, known[model[c.SNAPSHOT_ID]])
        flat = [(split, name, figure) for split, part in metrics.items() for name, figure in part.items()]
        rows += [
            (context.run_id, model[c.MODEL], split, name, figure[c.MEAN], figure[c.LOW], figure[c.HIGH])
            for split, name, figure in flat
        ]
        # Those of segments and groups have labels of the data in their names, and are many: the table has them.
        logged = {f"{split}.{model[c.MODEL]}.{name}": one[c.MEAN] for split, name, one in flat if "/" not in name}
        context.tracking.log_metrics(context.mlflow_id, logged)
    for parts in known.values():
        parts.forget()
    columns = ", ".join(f"{name} {kind}" for name, kind in tables.METRICS.columns.items())
    context.lakehouse.merge(tables.METRICS, context.spark.createDataFrame(rows, columns))
    return {"models": len(models), "rows_out": len(rows), "comparisons": _compare(context, users)}


def measure(context: Context, recommender: Recommender, known: HeldOut) -> tuple[dict[str, Metrics], pd.DataFrame]:
    """The figures of each part, and those of each user of test.

    A user's list is the same for both parts: only train items are left out of it.
    """
    settings = context.settings.evaluate
    slots = context.spark.sparkContext.defaultParallelism
    lists = recommend_in_spark(recommender, known.users, max(settings.ks), slots).select(*c.RECOMMENDATIONS)
    on_driver = known.on_driver
    shown: Any = lists.toPandas() if on_driver else lists.persist()
    evaluate = executors.evaluate_numpy if on_driver else executors.evaluate_spark
    metrics = {
        split: evaluate(shown, truth, settings.ks, len(recommender.items), settings.bootstrap_samples, **known.given)
        for split, truth in known.truths.items()
    }
    asked = {name: known.given[name] for name in ("catalogue", "histories")}
    first = (min(settings.ks),)
    if on_driver:
        return metrics, executors.per_user_numpy(shown, known.compared, first, **asked)
    users = executors.per_user_spark(shown, known.compared, first, **asked).toPandas()
    lists.unpersist()
    return metrics, users


def _compare(context: Context, users: Mapping[str, pd.DataFrame]) -> int:
    """Write ops.comparisons; returns how many comparisons there are."""
    if len(users) < 2:
        return 0
    rows = [
        {c.RUN_ID: context.run_id, c.SPLIT: TEST, c.MODEL: model, "best": best, **one.as_dict()}
        for best, others in against_best(users, context.settings.evaluate.bootstrap_samples).values()
        for model, one in others.items()
    ]
    columns = tables.COMPARISONS.columns
    schema = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    frame = context.spark.createDataFrame([tuple(row[name] for name in columns) for row in rows], schema)
    context.lakehouse.merge(tables.COMPARISONS, frame)
    return len(rows)


JOB = Job(
    name="evaluate",
    run=run,
    sections=("evaluate",),
    # The declared part of silver.items is made of bronze.catalog.
    reads=(tables.MODELS, tables.SNAPSHOTS, tables.CATALOG),
)
