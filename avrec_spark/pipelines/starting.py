"""Where a run's fusion model begins: at random, or with an earlier one, which is then fine-tuned or updated."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import UsageError
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.update import update
from avrec_spark.pipelines.job import Context
from avrec_spark.training.warm_start import WarmStart

LATEST = "latest"
PRETRAINED = "pretrained"


def fit(context: Context, model: Fusion, training_set: TrainingSet) -> Fusion:
    """Fit as `train.start` says. An update that forgets too much is dropped, and the model fitted anew."""
    settings = context.settings.train.start
    earlier = find(context, settings.model) if settings.model is not None else None
    if earlier is None:
        return model.fit_training_set(training_set)
    if not settings.update:
        return model.starting_from(earlier, settings.ids).fit_training_set(training_set)
    if not isinstance(earlier, Fusion):
        raise UsageError(
            f"train.start.model={settings.model} is a pre-trained encoder, which has no behaviour to update.",
            "Set train.start.update=false to fine-tune it.",
        )
    staged = ("snapshots", f"update-{context.run_id}")
    try:
        done = update(
            model,
            earlier,
            training_set,
            epochs=settings.epochs,
            rehearsal=settings.rehearsal,
            most_forgotten=settings.most_forgotten,
            folder=context.lakehouse.path(*staged),
        )
    finally:
        context.lakehouse.remove(*staged)
    context.note(f"fusion updated: {done}")
    figures = {"older": done.older} | ({} if done.newer is None else {"newer": done.newer})
    named = {f"{part}_{when}": one for part, pair in figures.items() for when, one in zip(_WHEN, pair, strict=True)}
    context.facts["update"] = {"accepted": done.accepted, **named}
    context.tracking.log_metrics(context.mlflow_id, {f"update.{name}": one for name, one in named.items()})
    return done.model if done.accepted else model.fit_training_set(training_set)


_WHEN = ("before", "after")


def find(context: Context, name: str) -> Fusion | WarmStart | None:
    """The fusion model or pre-trained encoder of that name: `latest`, a run id, a folder or an MLflow URI.

    None where `latest` is asked for and there is none yet. Raises `UsageError` for anything else that is not there.
    """
    known = context.lakehouse.read_or_empty(tables.MODELS).where(F.col(c.MODEL) == "fusion")
    known = known.where(F.col(c.RUN_ID) != context.run_id) if name == LATEST else known.where(F.col(c.RUN_ID) == name)
    row = known.orderBy(F.col(c.RECORDED_AT).desc()).first()
    uri = name if row is None else str(row[c.MODEL_URI])
    if row is None and name == LATEST:
        context.note("no fusion model to start from yet: it begins at random")
        return None
    folder = context.tracking.download(uri) / "artifacts" / "model" if ":/" in uri else Path(uri)
    encoder = Path(context.lakehouse.path(PRETRAINED, name))
    if not folder.exists() and not encoder.exists():
        raise UsageError(
            f"There is no fusion model to start from at train.start.model={name}.",
            "Name a run that has trained fusion or has done the job pretrain, the folder of one, or an MLflow URI.",
        )
    folder = folder if folder.exists() else encoder
    if not (folder / "model.json").is_file():
        return WarmStart.load(folder)
    found = Recommender.load(folder)
    if not isinstance(found, Fusion):
        raise UsageError(f"The model in {folder} is {found.name}, not fusion.", "Name a fusion model.")
    return found
