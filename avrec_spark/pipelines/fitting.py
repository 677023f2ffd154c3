"""A model as the settings ask for it, ready to be fitted: its parameters, its ranks and its checkpoints."""

from __future__ import annotations

from typing import Any

from avrec_spark import config
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.torch_model import TorchRecommender
from avrec_spark.pipelines.job import Context
from avrec_spark.training import launchers
from avrec_spark.training.checkpoints import Checkpoints
from avrec_spark.training.loop import epoch_line


def create(settings: config.TrainSettings, name: str, **parameters: Any) -> Recommender:
    """The model with its settings over the given parameters; one that draws at random takes `train.seed`, unless it is
    given its own."""
    seed = {"seed": settings.seed} if "seed" in registry.create(name).parameters else {}
    return registry.create(name, **parameters | seed | settings.parameters.get(name, {}))


def prepared(context: Context, name: str, **parameters: Any) -> Recommender:
    """`create`, with the launcher of the settings where the model is trained by steps."""
    settings = context.settings.train
    model = create(settings, name, **parameters)
    if isinstance(model, TorchRecommender):
        model.launcher = launchers.create(settings.launcher, settings.start_timeout_seconds)
        step = context.progress.steps(context.job)
        model.launcher.report = lambda figures: step(f"{name}: {epoch_line(figures)}", bool(figures["ended"]))
        model.workers = settings.workers
        model.options = _options(context, name)
    return model


def checkpoints(context: Context, name: str) -> Checkpoints:
    """Of this run: another run id starts afresh, the same one goes on."""
    return Checkpoints(_folder(context, name))


def _folder(context: Context, name: str) -> str:
    return context.lakehouse.path("checkpoints", context.run_id, name)


def _options(context: Context, name: str) -> dict[str, Any]:
    """How the loop runs, where the settings say something else than its defaults, which a model may have its own of."""
    settings = context.settings.train
    names = ("scale_with_ranks", "warmup_steps", "lazy_embeddings", "precision")
    defaults = config.TrainSettings()
    options = {one: getattr(settings, one) for one in names if getattr(settings, one) != getattr(defaults, one)}
    if settings.checkpoint_every_steps:
        options |= {
            "checkpoints": _folder(context, name),
            "checkpoint_every_steps": settings.checkpoint_every_steps,
        }
    return options
