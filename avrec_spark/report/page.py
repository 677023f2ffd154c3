"""The report of a run as one self-contained HTML page."""

from __future__ import annotations

import base64
from typing import Any

import jinja2
import pandas as pd

from avrec_spark.report import charts
from avrec_spark.report.data import ReportData

_MAIN_METRICS = ("ndcg", "recall", "precision", "map", "mrr", "hit-rate", "coverage")


def render(data: ReportData) -> str:
    """The page; texts of the data are escaped, images and styles are inside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avrec_spark.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"count": count, "seconds": seconds, "share": share, "jpeg": jpeg}
    return environment.get_template("report.html").render(
        data=data,
        curves=_curves(data.curves),
        tables=[_metric_table(data.metrics, split) for split in ("test", "validation")],
        jobs=data.jobs.to_dict("records"),
        longest=max(data.jobs["seconds"], default=1) or 1,
        quarantine=data.quarantine.to_dict("records"),
        coverage=data.coverage.to_dict("records"),
    )


def count(number: float) -> str:
    """
    >>> count(29639)
    '29,639'
    """
    return f"{number:,.0f}"


def seconds(value: float) -> str:
    """
    >>> seconds(7.26), seconds(754), seconds(9030)
    ('7.3 s', '12 min 34 s', '2 h 30 min')
    """
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def share(value: float) -> str:
    """
    >>> share(0.9756)
    '98 %'
    """
    return f"{value:.0%}".replace("%", " %")


def jpeg(image: bytes) -> str:
    """The image as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


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
    return drawn


def _metric_table(metrics: pd.DataFrame, split: str) -> dict[str, Any]:
    """Models as rows, metrics as columns, best first by the first metric; the best of each column is marked."""
    rows = metrics[metrics["split"] == split]
    names = sorted(rows["metric"].unique(), key=_order)
    columns = [name for name in names if name.split("@")[-1] == _first_cutoff(names)]
    figures = {(row["model"], row["metric"]): row for row in rows[rows["metric"].isin(columns)].to_dict("records")}
    lead = columns[0] if columns else ""
    models = sorted(rows["model"].unique(), key=lambda model: -figures[model, lead]["mean"] if lead else 0)
    best = {name: max(figures[model, name]["mean"] for model in models) for name in columns}
    reference = figures.get(("popular", lead), {}).get("mean")
    return {"split": split, "columns": columns, "models": models, "figures": figures, "best": best, "lead": lead} | {
        "reference": reference
    }


def _order(name: str) -> tuple[int, int]:
    metric, _, k = name.partition("@")
    return int(k or 0), _MAIN_METRICS.index(metric) if metric in _MAIN_METRICS else len(_MAIN_METRICS)


def _first_cutoff(names: list[str]) -> str:
    return names[0].split("@")[-1] if names else ""
