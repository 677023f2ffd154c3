"""`avrec evaluate` with several models: the same files, one after another, and what their difference is worth.

Each model has a folder of its own in `out`, as a single one would; beside them lies comparison.json: by metric and
model the fields of `significance.Comparison` against the reference, and its warning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from avrec_spark import columns as c
from avrec_spark.errors import UsageError, closest
from avrec_spark.evaluation import commands, executors
from avrec_spark.evaluation.bootstrap import Metrics
from avrec_spark.evaluation.files import read_interactions, same_id_types
from avrec_spark.evaluation.significance import Comparison, compare_frames

# By which models are compared, at each list length.
COMPARED = ("ndcg", "recall")
Comparisons = dict[str, dict[str, Comparison]]


def run_comparison(
    models: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    ks: tuple[int, ...],
    out: Path,
    reference: str | None = None,
    **files: Any,
) -> tuple[dict[str, Metrics], Comparisons]:
    """Fit and measure all models, and compare them, paired by user, with `reference` (default: the first).

    `parameters` are by model; `files` are what `commands.run_evaluate` takes. Returns the metrics by model, and the
    comparisons by metric and model. Raises `UsageError` for a model named twice and a reference that is not among them.
    """
    twice = {name for name in models if list(models).count(name) > 1}
    if twice:
        raise UsageError(f"The model {twice.pop()} is named twice.", "Name each model once.")
    reference = models[0] if reference is None else reference
    if reference not in models:
        raise UsageError(
            f"The reference {reference} is none of the models.{closest(reference, models)}",
            f"Choose of {', '.join(models)}.",
        )
    metrics = {
        name: commands.run_evaluate(model=name, parameters=parameters.get(name), ks=ks, out=out / name, **files)
        for name in models
    }
    truth = read_interactions(files["test"])
    users = {name: _per_user(out / name, truth, ks) for name in models}
    compared = {f"{metric}@{k}": compare_frames(users, reference, f"{metric}@{k}") for k in ks for metric in COMPARED}
    document = {
        "reference": reference,
        "comparisons": {
            metric: {name: one.as_dict() for name, one in found.items()} for metric, found in compared.items()
        },
    }
    (out / "comparison.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return metrics, compared


def _per_user(folder: Path, truth: pd.DataFrame, ks: tuple[int, ...]) -> pd.DataFrame:
    lists, pairs = same_id_types(pd.read_parquet(folder / "recommendations.parquet"), truth)
    return executors.per_user_numpy(lists, pairs[[c.USER_ID, c.ITEM_ID]], ks)


def metrics_table(metrics: Mapping[str, Metrics]) -> Table:
    """Metrics as rows, models as columns; the intervals stand beside a single model, and are in its file otherwise."""
    table = Table(title=None if len(metrics) > 1 else next(iter(metrics)), box=None, pad_edge=False)
    table.add_column("metric")
    for name in metrics:
        table.add_column(name if len(metrics) > 1 else "mean", justify="right")
    if len(metrics) == 1:
        table.add_column("95 % interval", justify="right")
    for row in dict.fromkeys(name for figures in metrics.values() for name in figures):
        cells = [f"{figures[row][c.MEAN]:.4f}" if row in figures else "–" for figures in metrics.values()]
        if len(metrics) == 1:
            figure = next(iter(metrics.values()))[row]
            spread = figure[c.LOW] < figure[c.HIGH]
            cells.append(f"{figure[c.LOW]:.4f} – {figure[c.HIGH]:.4f}" if spread else "")
        table.add_row(row, *cells)
    return table


def comparison_table(compared: Comparisons, reference: str) -> Table:
    """One row a metric and model: the paired difference from the reference, its interval, and the tests."""
    table = Table(title=f"Difference from {reference}, paired by user", title_justify="left", box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("model")
    for name in ("difference", "95 % interval", "p (t, Holm)", "p (Wilcoxon)", "detectable"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for metric, found in compared.items():
        for name, one in found.items():
            verdict = ("better" if one.difference > 0 else "worse") if one.significant else "not told apart"
            interval = f"{one.low:+.4f} – {one.high:+.4f}"
            tests = f"{one.adjusted:.2g}", f"{one.p_wilcoxon:.2g}", f"{one.detectable:.4f}"
            table.add_row(metric, name, f"{one.difference:+.4f}", interval, *tests, verdict)
    return table


def warnings(compared: Comparisons) -> list[str]:
    """What to say of comparisons that could not have found a relevant difference."""
    return [f"{name}, {one.warning}" for found in compared.values() for name, one in found.items() if one.warning]
