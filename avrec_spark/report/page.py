"""The report of a run as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from typing import Any

import jinja2
import pandas as pd

from avrec_spark.report import charts
from avrec_spark.report.data import ReportData

MISSING = "–"
_MAIN_METRICS = ("ndcg", "recall", "precision", "map", "mrr", "hit-rate", "coverage")
# Of unequal exposure: 0 where all items are shown alike.
_LOWER_IS_BETTER = ("gini",)


def render(data: ReportData) -> str:
    """The page; texts of the data are escaped, images and styles are inside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avrec_spark.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"count": count, "seconds": seconds, "share": share, "figure": figure, "jpeg": jpeg}
    spent = data.jobs["seconds"].fillna(0.0) if len(data.jobs) else pd.Series([0.0])
    return environment.get_template("report.html").render(
        data=data,
        curves=_curves(data.curves),
        tables=[_metric_table(data.metrics, split) for split in ("test", "validation")],
        jobs=_records(data.jobs),
        longest=float(spent.max()) or 1.0,
        spent=float(spent.sum()),
        quarantine=_records(data.quarantine),
        coverage=_records(data.coverage),
    )


def count(number: float | None) -> str:
    """
    >>> count(29639), count(None)
    ('29,639', '–')
    """
    return MISSING if _missing(number) else f"{number:,.0f}"


def seconds(value: float | None) -> str:
    """
    >>> seconds(7.26), seconds(59.96), seconds(754), seconds(9030), seconds(None)
    ('7.3 s', '1 min 0 s', '12 min 34 s', '2 h 30 min', '–')
    """
    if value is None or _missing(value):
        return MISSING
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def share(value: float | None) -> str:
    """
    >>> share(0.9756), share(float("nan"))
    ('98 %', '–')
    """
    return MISSING if _missing(value) else f"{value:.0%}".replace("%", " %")


def figure(value: float | None, digits: int = 4) -> str:
    """
    >>> figure(0.26184), figure(0.26184, 3), figure(None)
    ('0.2618', '0.262', '–')
    """
    return MISSING if _missing(value) else f"{value:.{digits}f}"


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
    return [(caption, chart) for caption, chart in drawn if chart]


def _metric_table(metrics: pd.DataFrame, split: str) -> dict[str, Any]:
    """Models as rows, metrics as columns, best first by the first metric; the best of each column is marked.

    A model that lacks a metric, or has one that is not a number, keeps its row.
    """
    rows = metrics[metrics["split"] == split]
    names = sorted(rows["metric"].unique(), key=_order)
    columns = [name for name in names if name.split("@")[-1] == _first_cutoff(names)]
    chosen = rows[rows["metric"].isin(columns) & rows["mean"].notna()]
    figures = {(row["model"], row["metric"]): row for row in chosen.to_dict("records")}
    best = {str(name): _best(str(name), means) for name, means in chosen.groupby("metric")["mean"]}
    lead = columns[0] if columns else ""
    leading = {model: figures.get((model, lead), {}).get("mean", -math.inf) for model in rows["model"].unique()}
    reference = figures.get(("popular", lead), {}).get("mean")
    return {
        "split": split,
        "columns": columns,
        "models": sorted(leading, key=lambda model: (-leading[model], model)),
        "figures": figures,
        "best": best,
        "lead": lead,
        "reference": reference,
    }


def _best(name: str, means: pd.Series[float]) -> float:
    return float(means.min() if name.partition("@")[0] in _LOWER_IS_BETTER else means.max())


def _order(name: str) -> tuple[int, int]:
    metric, _, k = name.partition("@")
    return int(k or 0), _MAIN_METRICS.index(metric) if metric in _MAIN_METRICS else len(_MAIN_METRICS)


def _first_cutoff(names: list[str]) -> str:
    return names[0].split("@")[-1] if names else ""


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the template; what is missing is None, whatever pandas calls it."""
    rows = frame.to_dict("records")
    return [{str(name): None if _missing(value) else value for name, value in row.items()} for row in rows]


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
