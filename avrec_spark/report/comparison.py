"""The comparison of models: metrics with intervals, what their differences are worth, plots, and segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from avrec_spark.evaluation.metrics import PER_USER, better, parts
from avrec_spark.evaluation.segments import COLD_ITEMS, HEAVY, LIGHT, NEW, WARM_ITEMS
from avrec_spark.report import charts
from avrec_spark.report.template import environment

_BEYOND = ("diversity", "unexpectedness", "novelty", "serendipity", "popularity", "popularity-lift", "miscalibration")
_OVERALL = ("coverage", "gini", "entropy", "group-gini", "group-parity", "group-divergence")
FAMILIES = {
    "Accuracy": PER_USER,
    "Beyond accuracy": _BEYOND,
    "All lists together": _OVERALL,
}
_ORDER = [name for names in FAMILIES.values() for name in names]
_SEGMENTED = ("ndcg", "recall")
# All users come first; segments that a file names stand after those that are made here.
_SEGMENTS = ("", NEW, LIGHT, HEAVY, WARM_ITEMS, COLD_ITEMS)
_EXPOSURE = "exposure"
# What a cell can be marked as.
BEST, EQUAL, POWERLESS = "best", "equal", "powerless"


def order(name: str) -> tuple[int, int, str]:
    """By list length, then accuracy first: a key for sorting names of figures.

    >>> sorted(["gini@10", "ndcg@20", "rmse", "ndcg@10/new", "ndcg@10"], key=order)
    ['rmse', 'ndcg@10', 'ndcg@10/new', 'gini@10', 'ndcg@20']
    """
    metric, k, label = parts(name)
    return k, _ORDER.index(metric) if metric in _ORDER else len(_ORDER), label


@dataclass(frozen=True)
class Compared:
    """What was measured and compared.

    `metrics` model, split, metric, mean, low, high · `comparisons` split, metric, model, best, users, difference, low,
    high, p_wilcoxon, adjusted, detectable, significant, warning: each model against the best, paired by user.
    """

    metrics: pd.DataFrame
    comparisons: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["split", "metric", "model"]))

    def of(self, split: str) -> Compared:
        """The figures and comparisons of one part."""
        known = self.metrics[(self.metrics["split"] == split) & self.metrics["mean"].notna()]
        return Compared(known, self.comparisons[self.comparisons["split"] == split])

    @property
    def names(self) -> list[str]:
        return sorted(map(str, self.metrics["metric"].unique()), key=order)

    @property
    def lead(self) -> str:
        """The first figure of all users: what models are ranked by. Empty where there is none."""
        return next((name for name in self.names if not parts(name)[2]), "")

    def models(self) -> list[str]:
        """Best first by the lead; a model that lacks it keeps its place at the end."""
        means = self._means(self.lead) * better(self.lead)
        models = map(str, self.metrics["model"].unique())
        return sorted(models, key=lambda name: (-means.get(name, -math.inf), name))

    def _means(self, name: str) -> pd.Series[float]:
        return self.metrics[self.metrics["metric"] == name].set_index("model")["mean"]

    def table(self, names: Sequence[str]) -> dict[str, Any]:
        """Models as rows, the figures of these names as columns; for each cell its interval and its mark."""
        rows = self.metrics[self.metrics["metric"].isin(names)]
        figures = {(row["model"], row["metric"]): row for row in rows.to_dict("records")}
        marks = {key: mark for name in names for key, mark in self._marks(name).items()}
        return {"columns": list(names), "models": self.models(), "figures": figures, "marks": marks}

    def _marks(self, name: str) -> dict[tuple[str, str], str]:
        """The best, and those that a test does not tell apart from it; of models that all have the same, none."""
        means = self._means(name) * better(name)
        if len(means) < 2 or means.nunique() < 2:
            return {}
        found = {(str(model), name): BEST for model in means[means == means.max()].index}
        for row in self.comparisons[self.comparisons["metric"] == name].to_dict("records"):
            if not row["significant"]:
                found.setdefault((row["model"], name), POWERLESS if row["warning"] else EQUAL)
        return found

    def interval(self, model: str, name: str) -> charts.Interval | None:
        rows = self.metrics[(self.metrics["model"] == model) & (self.metrics["metric"] == name)]
        return None if rows.empty else tuple(rows.iloc[0][["mean", "low", "high"]].astype(float))  # type: ignore[return-value]


def render(title: str, metrics: pd.DataFrame, comparisons: pd.DataFrame | None = None, home: str | None = None) -> str:
    """The comparison page. Columns as of `Compared`; `home` is a link back to the report."""
    compared = Compared(metrics) if comparisons is None else Compared(metrics, comparisons)
    test = compared.of("test")
    return (
        environment()
        .get_template("comparison.html")
        .render(
            title=title,
            home=home,
            lead=test.lead,
            verdict=_verdict(test),
            warnings=_warnings(test),
            ranking=_ranking(test),
            plots=plots(test),
            families=_families(test),
            validation=_families(compared.of("validation"))[:1],
            segments=_segments(test),
            exposure=_exposure(test),
            differences=_differences(test),
        )
    )


def plots(compared: Compared) -> list[tuple[str, Any]]:
    """(caption, chart): accuracy against diversity (coverage where no item has vectors), popularity against novelty."""
    k = parts(compared.lead)[1]
    have = set(compared.names)
    variety = next((name for name in (f"diversity@{k}", f"coverage@{k}") if name in have), "")
    wanted = [
        ("Accuracy against diversity", compared.lead, variety, "up and to the right: accurate and varied"),
        ("Popularity against novelty", f"popularity@{k}", f"novelty@{k}", "up and to the left: less of what all know"),
    ]
    drawn = []
    for caption, across, up, reading in wanted:
        points = {
            model: (x, y)
            for model in compared.models()
            if (x := compared.interval(model, across)) and (y := compared.interval(model, up))
        }
        drawn.append((f"{caption} · {reading}", charts.scatter(points, across, up)))
    return [(caption, chart) for caption, chart in drawn if chart]


def _ranking(compared: Compared) -> Any:
    rows = {model: found for model in compared.models() if (found := compared.interval(model, compared.lead))}
    return charts.intervals(rows, compared.lead)


def _families(compared: Compared) -> list[dict[str, Any]]:
    """A table a family of metrics and list length."""
    lengths = sorted({parts(name)[1] for name in compared.names})
    tables = []
    for family, metrics in FAMILIES.items():
        for k in lengths:
            names = [name for name in compared.names if parts(name)[1:] == (k, "") and parts(name)[0] in metrics]
            if names:
                labels = {name: parts(name)[0] for name in names}
                tables.append({"title": family, "k": k, "labels": labels, **compared.table(names)})
    return tables


def _segments(compared: Compared) -> list[dict[str, Any]]:
    """For the first list length: models as rows, all users and then each segment as columns."""
    k = parts(compared.lead)[1]
    tables = []
    for metric in _SEGMENTED:
        names = [name for name in compared.names if parts(name)[:2] == (metric, k)]
        names.sort(key=lambda name: (_SEGMENTS + (parts(name)[2],)).index(parts(name)[2]))
        if len(names) > 1:
            labels = {name: parts(name)[2] or "all users" for name in names}
            tables.append({"title": f"{metric}@{k}", "labels": labels, **compared.table(names)})
    return tables


def _exposure(compared: Compared) -> dict[str, Any] | None:
    """The shares of the groups, for the first list length."""
    k = parts(compared.lead)[1]
    names = [name for name in compared.names if parts(name)[:2] == (_EXPOSURE, k)]
    if not names:
        return None
    return {**compared.table(names), "marks": {}, "labels": {name: parts(name)[2] for name in names}}


def _of_lead(compared: Compared) -> list[dict[Any, Any]]:
    rows = compared.comparisons[compared.comparisons["metric"] == compared.lead].to_dict("records")
    places = {model: place for place, model in enumerate(compared.models())}
    return sorted(rows, key=lambda row: places.get(row["model"], len(places)))


def _verdict(compared: Compared) -> dict[str, Any] | None:
    """The best model by the lead, and the others by whether the test tells them apart from it."""
    rows = _of_lead(compared)
    if not rows:
        return None
    return {
        "best": rows[0]["best"],
        "figure": compared.interval(rows[0]["best"], compared.lead),
        "users": rows[0]["users"],
        "equal": [row["model"] for row in rows if not row["significant"]],
        "behind": [row["model"] for row in rows if row["significant"]],
    }


def _warnings(compared: Compared) -> list[tuple[str, str]]:
    return [(row["model"], row["warning"]) for row in _of_lead(compared) if row["warning"]]


def _differences(compared: Compared) -> list[dict[str, Any]]:
    """The paired differences by metric, the lead's first."""
    names = sorted(compared.comparisons["metric"].unique(), key=order)
    places = {model: place for place, model in enumerate(compared.models())}
    found = []
    for name in names:
        rows = compared.comparisons[compared.comparisons["metric"] == name].to_dict("records")
        rows.sort(key=lambda row: places.get(row["model"], len(places)))
        found.append({"metric": name, "best": rows[0]["best"], "rows": rows})
    return found
