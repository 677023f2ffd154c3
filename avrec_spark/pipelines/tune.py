"""`avrec tune`: search a model's settings on validation, each trial an MLflow run under the search's.

On a yardstick's validation part, or on that of the latest snapshot of a lakehouse. The study lies beside the file that
is written, with the ending .db: the same command goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avrec_spark import columns as c
from avrec_spark import config, session
from avrec_spark.errors import DataError
from avrec_spark.evaluation import yardsticks
from avrec_spark.evaluation.part import Part
from avrec_spark.lakehouse import Lakehouse, check_writable
from avrec_spark.models import registry
from avrec_spark.pipelines import snapshots
from avrec_spark.progress import Progress
from avrec_spark.tracking import Tracking
from avrec_spark.training import search
from avrec_spark.training.search import Found, Trial


@dataclass(frozen=True)
class Request:
    """What to search: at most `trials` trials of a model, with some parameters `fixed`, into the file `out`."""

    model: str
    trials: int
    out: Path
    fixed: Mapping[str, Any]
    metric: str | None = None
    seed: int = 42


def on_yardstick(request: Request, name: str, data: Path | None, parts: int = 1) -> Found:
    """Search on a protocol's validation parts, from its settings of the model; MLflow's store lies beside `out`.

    A blend's members that name no parameters have the protocol's settings of their models.
    """
    protocol = yardsticks.find(name)
    if "members" in request.fixed:
        members = [
            {**protocol.tuned(one["model"]).parameters, **one} if one.keys() == {"model"} else one
            for one in request.fixed["members"]
        ]
        request = replace(request, fixed={**request.fixed, "members": members})
    settings = config.load()
    found = _search(
        request,
        protocol.validation_parts(data, request.model, parts),
        request.metric or protocol.metric,
        protocol.tuned(request.model).parameters,
        settings,
        lambda: Tracking(settings.tracking, str(request.out.resolve().parent)),
        name,
    )
    search.write(found, request.out)
    return found


def on_snapshot(request: Request, settings: config.Settings) -> Found:
    """Search on the latest snapshot, from the parameters of the settings, by the metric that decides on promotion."""
    lakehouse = Lakehouse(session.get(settings.spark), settings.lakehouse.root)
    latest = snapshots.latest(lakehouse)
    found = _search(
        request,
        [Part.of_snapshot(latest["path"])],
        request.metric or settings.promote.metric,
        settings.train.parameters.get(request.model, {}),
        settings,
        lambda: Tracking(settings.tracking, lakehouse.root),
        latest[c.SNAPSHOT_ID],
    )
    search.write(found, request.out, settings)
    return found


def _search(
    request: Request,
    parts: list[Part],
    metric: str,
    start: Mapping[str, Any],
    settings: config.Settings,
    tracking: Callable[[], Tracking],
    where: str,
) -> Found:
    if request.model == search.BLEND:
        metric = f"ndcg@{metric.partition('@')[2]}"
    else:
        search.space_of(request.model, request.fixed)
    if any(len(part.held_out) == 0 for part in parts):
        raise DataError("There is no validation row to choose by.", "Make a snapshot with a larger validation_share.")
    check_writable(str(request.out.resolve().parent))
    if registry.create(request.model, **request.fixed).needs_spark:
        session.get(settings.spark)
    tracked, progress = tracking(), Progress()

    def record(trial: Trial) -> None:
        tags = {"avrec.state": trial.state, "avrec.metric": metric}
        with tracked.job_run(f"tune-{request.model}-{where}", f"trial-{trial.number}", trial.parameters, tags) as run:
            steps = [{"epoch": step, metric: figure} for step, figure in enumerate(trial.figures)]
            tracked.log_history(run, "steps", steps)
            tracked.log_metrics(run, {metric: trial.figures[-1], "seconds": trial.seconds})
        shown = ", ".join(f"{name} {_short(value)}" for name, value in trial.parameters.items())
        state = " (pruned)" if trial.state == "pruned" else ""
        progress.note("tune", f"trial {trial.number}: {metric} {trial.figures[-1]:.4f}{state}, {shown}")

    return search.search(
        request.model,
        parts,
        request.trials,
        metric,
        request.fixed,
        start,
        request.out.with_suffix(".db"),
        request.seed,
        record,
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
