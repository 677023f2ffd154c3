"""`avrec evaluate` with several models: the same files, one after another, and what their difference is worth.

Each model has a folder of its own in `out`, as a single one would. Beside them lie comparison.json, by metric and model
the fields of `significance.Comparison` against the reference, and its warning; and comparison.html, the page that the
report of a run has too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from avrec_spark import columns as c
from avrec_spark.dataset.splits import TEST
from avrec_spark.errors import UsageError, closest
from avrec_spark.evaluation import commands, executors
from avrec_spark.evaluation.bootstrap import Metrics
from avrec_spark.evaluation.files import read_interactions, same_id_types
from avrec_spark.evaluation.metrics import PER_USER, better, parts
from avrec_spark.evaluation.significance import Comparison, against_best, compare_frames
from avrec_spark.report import comparison as page

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
    title = f"{files['train']} → {files['test']}"
    (out / "comparison.html").write_text(_page(title, metrics, users, min(ks)), encoding="utf-8")
    return metrics, compared


def _page(title: str, metrics: Mapping[str, Metrics], users: Mapping[str, pd.DataFrame], k: int) -> str:
    """The comparison page; the metrics of accuracy at k are compared with the best."""
    figures = [
        {c.MODEL: model, c.SPLIT: TEST, c.METRIC: name, **figure}
        for model, found in metrics.items()
        for name, figure in found.items()
    ]
    first = {name: frame[[c.USER_ID, *(f"{metric}@{k}" for metric in PER_USER)]] for name, frame in users.items()}
    compared = [
        {c.MODEL: model, c.SPLIT: TEST, "best": best, **one.as_dict()}
        for best, others in against_best(first).values()
        for model, one in others.items()
    ]
    return page.render(title, pd.DataFrame(figures), pd.DataFrame(compared) if compared else None)


def _per_user(folder: Path, truth: pd.DataFrame, ks: tuple[int, ...]) -> pd.DataFrame:
    lists, pairs = same_id_types(pd.read_parquet(folder / "recommendations.parquet"), truth)
    return executors.per_user_numpy(lists, pairs[[c.USER_ID, c.ITEM_ID]], ks)


def metrics_tables(metrics: Mapping[str, Metrics], width: int) -> list[Table]:
    """Metrics as rows, models as columns, the best of a row marked by *; as many tables as `width` letters ask for.

    A single model has its intervals beside it; else they are in the files. Of segments only the metrics by which models
    are compared are shown, and of groups nothing: the files have all.
    """
    names = dict.fromkeys(name for figures in metrics.values() for name in figures)
    rows = [name for name in names if not parts(name)[2]]
    rows += [name for name in names if parts(name)[2] and parts(name)[0] in COMPARED]
    best = {name: _best(name, metrics) for name in rows}
    room = max(width - max(map(len, rows), default=0), 0)
    columns: list[list[str]] = [[]]
    for model in metrics:
        if columns[-1] and sum(_column_width(name) for name in (*columns[-1], model)) > room:
            columns.append([])
        columns[-1].append(model)
    alone = len(metrics) == 1
    return [_metrics_table({model: metrics[model] for model in some}, rows, best, alone) for some in columns]


def _metrics_table(
    metrics: Mapping[str, Metrics], rows: Sequence[str], best: Mapping[str, float | None], alone: bool
) -> Table:
    table = Table("metric", box=None, pad_edge=False)
    for name in metrics:
        table.add_column(name, justify="right", no_wrap=True)
    if alone:
        table.add_column("95 % interval", justify="right")
    for row in rows:
        figures = [found.get(row) for found in metrics.values()]
        cells = [
            "–" if one is None else f"{'*' if one[c.MEAN] == best[row] else ''}{one[c.MEAN]:.4f}" for one in figures
        ]
        if alone and (one := figures[0]) is not None:
            cells.append(f"{one[c.LOW]:.4f} – {one[c.HIGH]:.4f}" if one[c.LOW] < one[c.HIGH] else "")
        table.add_row(row, *cells)
    return table


def _best(name: str, metrics: Mapping[str, Metrics]) -> float | None:
    """The best mean; None where there is nothing to choose from."""
    means = {figures[name][c.MEAN] for figures in metrics.values() if name in figures}
    return None if len(means) < 2 else max(means) if better(name) > 0 else min(means)


def _column_width(model: str) -> int:
    # Figures have up to eight letters, and columns two between them.
    return max(len(model), 8) + 2


def comparison_table(compared: Comparisons, reference: str) -> Table:
    """One row a metric and model: the paired difference from the reference, its interval, and the test."""
    table = Table(title=f"Difference from {reference}, paired by user", title_justify="left", box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("model")
    for name in ("difference", "95 % interval", "p (Holm)", "detectable"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for metric, found in compared.items():
        for name, one in found.items():
            verdict = ("better" if one.difference > 0 else "worse") if one.significant else "not told apart"
            interval = f"{one.low:+.4f} – {one.high:+.4f}"
            tests = f"{one.adjusted:.2g}", f"{one.detectable:.4f}"
            table.add_row(metric, name, f"{one.difference:+.4f}", interval, *tests, verdict)
        table.add_section()
    return table


def warnings(compared: Comparisons) -> list[str]:
    """What to say of comparisons that could not have found a relevant difference."""
    return [f"{name}, {one.warning}" for found in compared.values() for name, one in found.items() if one.warning]
