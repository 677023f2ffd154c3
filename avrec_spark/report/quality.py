"""How good classifiers of labels are, as the report and the page of labels to review show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from avrec_spark.labels.metrics import METRICS
from avrec_spark.report import charts


def tables(quality: pd.DataFrame) -> list[dict[str, Any]]:
    """Of model, split, metric, mean: for each split the names of the figures, and those of each model."""
    return [_table(split, rows) for split, rows in quality.groupby("split", sort=False)]


def diagram(reliability: Mapping[str, pd.DataFrame]) -> Any:
    """The reliability diagram of tables with confidence, share and pairs, one a series; empty without any."""
    points = {name: list(zip(table["confidence"], table["share"], strict=True)) for name, table in reliability.items()}
    return charts.reliability(points, "confidence", "share of pairs that have the label")


def pairs(reliability: Mapping[str, pd.DataFrame]) -> int:
    """Of how many pairs of item and label the diagram is made."""
    return max((int(table["pairs"].sum()) for table in reliability.values()), default=0)


def _table(split: Any, rows: pd.DataFrame) -> dict[str, Any]:
    wide = rows.pivot(index="model", columns="metric", values="mean")
    names = [name for name in METRICS if name in wide]
    return {"split": split, "names": names, "rows": {model: wide.loc[model, names] for model in rows["model"].unique()}}
