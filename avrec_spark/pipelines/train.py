"""train: the run's snapshot → fitted models in MLflow, ops.models, and the fused vectors of the items."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import pandas as pd
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import SettingsError
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion
from avrec_spark.pipelines import fitting, snapshots, starting
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.serving import pyfunc


def run(context: Context) -> Counts:
    snapshot = snapshots.latest(context.lakehouse, context.run_id)
    training_set = TrainingSet.read(snapshot["path"])
    tags = context.lakehouse.read_or_empty(tables.ITEMS).select(c.ITEM_ID, c.TAGS).dropna().toPandas()
    rows = []
    for name in context.settings.train.models:
        if name == "fusion" and not training_set.features:
            context.note("fusion left out: no item has features")
            continue
        model, seconds = _fit(context, name, training_set)
        context.note(f"{name}: {seconds:.1f} s")
        parameters = json.dumps(model.parameters, default=str)
        uri = _log(context, name, model, tags)
        # Only now: a driver that dies while it writes the model need not train again.
        fitting.checkpoints(context, name).clear()
        rows.append((context.run_id, name, uri, snapshot[c.SNAPSHOT_ID], parameters, seconds))
        if isinstance(model, Fusion):
            _write_embeddings(context, model)
    schema = (
        f"{c.RUN_ID} string, {c.MODEL} string, {c.MODEL_URI} string, {c.SNAPSHOT_ID} string, "
        "parameters string, fit_seconds double"
    )
    frame = context.spark.createDataFrame(rows, schema).withColumn(c.RECORDED_AT, F.current_timestamp())
    context.lakehouse.merge(tables.MODELS, frame)
    return {"rows_in": len(training_set.user_index), "models": len(rows)}


def _fit(context: Context, name: str, training_set: TrainingSet) -> tuple[Recommender, float]:
    model = fitting.prepared(context, name)
    started = time.monotonic()
    if isinstance(model, Fusion):
        model = starting.fit(context, model, training_set)
    else:
        model.fit_training_set(training_set)
    return model, time.monotonic() - started


def _log(context: Context, name: str, model: Recommender, tags: pd.DataFrame) -> str:
    """The model and its curves into MLflow, with the tags of items; returns the model's URI."""
    context.tracking.log_history(context.mlflow_id, name, model.history)
    with tempfile.TemporaryDirectory() as folder:
        # The packaged model keeps the folder's name: it lies in artifacts/model.
        saved = Path(folder, "model")
        model.save(saved)
        pyfunc.keep_tags(tags, saved)
        return context.tracking.log_model(
            context.mlflow_id,
            name,
            pyfunc.CODE,
            saved,
            pyfunc.signature(model),
            pd.DataFrame({c.USER_ID: model.users.ids[:1]}),
            pyfunc.requirements(),
        )


def _write_embeddings(context: Context, model: Fusion) -> None:
    gates = model.gates()
    rows = pd.DataFrame(
        {
            c.ITEM_ID: model.items.ids,
            c.MODEL_VERSION: context.run_id,
            c.VECTOR: list(model.item_vectors()),
            c.GATES: gates.to_dict("records"),
        }
    )
    item_type = "bigint" if rows[c.ITEM_ID].dtype.kind == "i" else "string"
    schema = f"{c.ITEM_ID} {item_type}, {c.MODEL_VERSION} string, {c.VECTOR} array<float>, {c.GATES} map<string,float>"
    context.lakehouse.merge(tables.ITEM_EMBEDDINGS, context.spark.createDataFrame(rows, schema))


def _check(settings: config.Settings) -> None:
    # Making a model costs nothing, and refuses names and parameters that no model has.
    for name in (*settings.train.models, *settings.train.parameters):
        fitting.create(settings.train, name)
    if settings.train.start.model is not None and "fusion" not in settings.train.models:
        raise SettingsError(
            f"train.start.model={settings.train.start.model} is for the model fusion, which train.models lacks.",
            "Add it to train.models, or set train.start.model=null.",
        )


JOB = Job(name="train", run=run, sections=("train",), reads=(tables.SNAPSHOTS, tables.CATALOG), check=_check)
