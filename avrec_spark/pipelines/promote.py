"""promote: the registry alias `champion` moves to the run's best model when validation says that it deserves to.

The best model of the run must reach at least `popular` and at least the figure that the current champion was promoted
with. Decision and figures become tags of the run.
"""

from __future__ import annotations

from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import VALIDATION
from avrec_spark.errors import DataError
from avrec_spark.pipelines.job import Context, Counts, Job

REFERENCE = "popular"
FIGURE = "avrec.validation"


def run(context: Context) -> Counts:
    settings = context.settings.promote
    figures = _figures(context, settings.metric)
    best = max(figures, key=lambda model: (figures[model], model))
    reference = figures.get(REFERENCE, 0.0)
    champion = context.tracking.champion(settings.registered_model)
    standing = float(champion.tags.get(FIGURE, 0.0)) if champion else 0.0
    promoted = figures[best] >= max(reference, standing)

    tags = {
        "avrec.metric": settings.metric,
        "avrec.model": best,
        FIGURE: f"{figures[best]:.6f}",
        "avrec.reference": f"{reference:.6f}",
        "avrec.champion_before": f"{standing:.6f}",
        "avrec.run_id": context.run_id,
    }
    decision = f"{best} {figures[best]:.4f} against {REFERENCE} {reference:.4f} and the champion's {standing:.4f}"
    if promoted:
        uri = _model_uri(context, best)
        tags["avrec.version"] = context.tracking.promote(settings.registered_model, uri, tags)
        decision = f"promoted: {decision}"
    else:
        decision = f"kept the champion: {decision}"
    context.tracking.tag(context.mlflow_id, tags | {"avrec.decision": decision})
    context.note(decision)
    return {"candidates": len(figures), "promoted": int(promoted)}


def _figures(context: Context, metric: str) -> dict[str, float]:
    """The run's validation figure of each model."""
    metrics = context.lakehouse.read(tables.METRICS).where(
        (F.col(c.RUN_ID) == context.run_id) & (F.col(c.SPLIT) == VALIDATION)
    )
    rows = metrics.where(F.col(c.METRIC) == metric).collect()
    if not rows:
        have = sorted(row[0] for row in metrics.select(c.METRIC).distinct().collect())
        raise DataError(
            f"No model of run {context.run_id} has the validation metric {metric} (only {', '.join(have) or '-'}).",
            "Set promote.metric to one of them, or run the job evaluate first.",
        )
    return {row[c.MODEL]: float(row[c.MEAN]) for row in rows}


def _model_uri(context: Context, model: str) -> str:
    row = (
        context.lakehouse.read(tables.MODELS)
        .where((F.col(c.RUN_ID) == context.run_id) & (F.col(c.MODEL) == model))
        .first()
    )
    assert row is not None
    return str(row[c.MODEL_URI])


JOB = Job(name="promote", run=run, sections=("promote",), reads=(tables.METRICS, tables.MODELS))
