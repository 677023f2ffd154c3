"""The report of a run as one self-contained HTML page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from avrec_spark.evaluation.metrics import parts
from avrec_spark.report import charts, comparison, quality, understanding
from avrec_spark.report.comparison import Compared
from avrec_spark.report.data import ReportData
from avrec_spark.report.template import environment, is_missing

_MAIN_METRICS = ("ndcg", "recall", "map", "hit-rate", "coverage", "gini", "diversity", "novelty")


def render(data: ReportData) -> str:
    """The page; texts of the data are escaped, images and styles are inside."""
    spent = data.jobs["seconds"].fillna(0.0) if len(data.jobs) else pd.Series([0.0])
    test = Compared(data.metrics, data.comparisons).of("test")
    reliability = {str(kind): rows for kind, rows in data.labels.reliability.groupby("kind")}
    return (
        environment()
        .get_template("report.html")
        .render(
            data=data,
            curves=_curves(data.curves),
            tables=[_metric_table(data, split) for split in ("test", "validation")],
            plots=comparison.plots(test),
            jobs=_records(data.jobs),
            longest=float(spent.max()) or 1.0,
            spent=float(spent.sum()),
            quarantine=_records(data.quarantine),
            coverage=_records(data.coverage),
            quality=quality.tables(data.labels.quality[data.labels.quality["split"] == "test"]),
            diagram=quality.diagram(reliability),
            pairs=quality.pairs(reliability),
            gates=understanding.gates(data.gates),
            map=understanding.item_map(data.item_map),
            ablation=understanding.ablation(data.ablation),
        )
    )


def _curves(curves: pd.DataFrame) -> list[tuple[str, Any]]:
    """(caption, chart) for the loss and the validation metric."""
    drawn = []
    for metric in sorted(name for name in curves["metric"].unique() if name == "loss" or name.startswith("validation")):
        chosen = curves[curves["metric"] == metric].sort_values("epoch")
        series = {
            str(model): list(zip(rows["epoch"].astype(float), rows["value"].astype(float), strict=True))
            for model, rows in chosen.groupby("model")
        }
        caption = metric.replace("_at_", "@").replace("_", " ").capitalize()
        drawn.append((caption, charts.lines(series, "epoch", caption)))
    return [(caption, chart) for caption, chart in drawn if chart]


def _metric_table(data: ReportData, split: str) -> dict[str, Any]:
    """The main metrics at the first list length; the page of the comparison has all.

    A model that lacks a metric, or has one that is not a number, keeps its row.
    """
    compared = Compared(data.metrics, data.comparisons).of(split)
    k = parts(compared.lead)[1]
    names = [name for name in (f"{metric}@{k}" for metric in _MAIN_METRICS) if name in compared.names]
    table = compared.table(names)
    reference = table["figures"].get(("popular", compared.lead), {}).get("mean")
    lost = sorted(set(data.metrics.loc[data.metrics["split"] == split, "model"]) - set(table["models"]))
    return {
        **table,
        "models": [*table["models"], *lost],
        "labels": {name: parts(name)[0] for name in names},
        "k": k,
        "split": split,
        "lead": compared.lead,
        "reference": reference,
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the template; what is missing is None, whatever pandas calls it."""
    rows = frame.to_dict("records")
    return [{str(name): None if is_missing(value) else value for name, value in row.items()} for row in rows]
