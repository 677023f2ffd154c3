from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from avrec_spark.report import charts, comparison
from avrec_spark.report.comparison import Compared

VOID = {"meta", "br", "circle", "line", "polyline"}
EVIL = "<script>alert('x')</script>"
# als is the best by ndcg and the least diverse; ease is near it, mf is not.
FIGURES = {
    "als": {"ndcg@10": 0.30, "ndcg@10/new": 0.1, "ndcg@10/heavy": 0.5, "diversity@10": 0.2, "gini@10": 0.9},
    "ease": {"ndcg@10": 0.29, "ndcg@10/new": 0.2, "ndcg@10/heavy": 0.4, "diversity@10": 0.3, "gini@10": 0.8},
    "mf": {"ndcg@10": 0.10, "ndcg@10/new": 0.1, "ndcg@10/heavy": 0.1, "diversity@10": 0.4, "gini@10": 0.4},
}
MORE = {"popularity@10": 0.5, "novelty@10": 3.0, "ndcg@20": 0.4, "exposure@10/ann": 0.25, "exposure@10/bob": 0.75}


def metrics(figures: dict[str, dict[str, float]] | None = None, split: str = "test") -> pd.DataFrame:
    rows = [
        {"model": model, "split": split, "metric": name, "mean": mean, "low": mean - 0.02, "high": mean + 0.02}
        for model, found in (figures or {model: FIGURES[model] | MORE for model in FIGURES}).items()
        for name, mean in found.items()
    ]
    return pd.DataFrame(rows)


def against_als(model: str, difference: float, significant: bool, warning: str = "") -> dict[str, Any]:
    return {
        "split": "test", "metric": "ndcg@10", "model": model, "best": "als", "users": 400, "difference": difference,
        "low": difference - 0.02, "high": difference + 0.02, "p_wilcoxon": 0.5, "adjusted": 1e-9, "detectable": 0.03,
        "significant": significant, "warning": warning,
    }  # fmt: skip


COMPARISONS = pd.DataFrame([against_als("ease", -0.01, False), against_als("mf", -0.2, True)])


def page(*arguments: Any, **options: Any) -> str:
    return " ".join(comparison.render("A run", *arguments, **options).split())


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())


@pytest.mark.parametrize("given", [(metrics(), COMPARISONS), (metrics().head(0),)], ids=["full", "empty"])
def test_the_page_is_well_formed_and_fetches_nothing(given: tuple[pd.DataFrame, ...]) -> None:
    checker = Checker()
    found = page(*given)
    checker.feed(found)
    assert checker.open == []
    assert "http:" not in found and "https:" not in found


def test_the_verdict_names_the_best_and_who_is_behind_it_or_not_told_apart() -> None:
    found = page(metrics(), COMPARISONS)
    assert (
        "<b>als</b> has the best ndcg@10 on test. Significantly behind it: mf. Not told apart from it: ease." in found
    )
    assert "400" in found
    assert '<th scope="row">mf</th><td class="n">-0.2000</td><td class="n">-0.2200 to -0.1800</td>' in found


def test_cells_are_marked_as_best_not_told_apart_or_without_power() -> None:
    marks = Compared(metrics(), COMPARISONS).table(["ndcg@10", "gini@10", "popularity@10"])["marks"]
    # Of Gini coefficients the smallest is the best; all are equally popular, so nobody is best there.
    assert marks == {("als", "ndcg@10"): "best", ("ease", "ndcg@10"): "equal", ("mf", "gini@10"): "best"}
    weak = COMPARISONS.assign(warning="ndcg@10: no power. With 4 users …")
    assert Compared(metrics(), weak).table(["ndcg@10"])["marks"]["ease", "ndcg@10"] == "powerless"
    found = page(metrics(), weak)
    assert '<td class="n powerless">' in found
    assert "<b>ease</b>: ndcg@10: no power. With 4 users …" in found


def test_segments_stand_beside_all_users_and_groups_have_their_share() -> None:
    found = page(metrics(), COMPARISONS)
    head = (
        '<th scope="col" class="n">all users</th><th scope="col" class="n">new</th><th scope="col" class="n">heavy</th>'
    )
    assert head in found
    assert '<th scope="col" class="n">ann</th><th scope="col" class="n">bob</th>' in found
    assert "25 %" in found


def test_plots_have_a_point_a_model_and_say_so_in_words() -> None:
    (first, accuracy), (second, popularity) = comparison.plots(Compared(metrics()).of("test"))
    assert first.startswith("Accuracy against diversity")
    assert second.startswith("Popularity against novelty")
    assert 'aria-label="diversity@10 against ndcg@10: als 0.3, 0.2; ease 0.29, 0.3; mf 0.1, 0.4"' in accuracy
    assert popularity.count('class="dot') == 3


def test_without_vectors_accuracy_is_laid_against_coverage() -> None:
    figures = {model: {"ndcg@10": 0.1, "coverage@10": 0.5} for model in ("als", "mf")}
    ((_, chart),) = comparison.plots(Compared(metrics(figures)).of("test"))
    assert 'aria-label="coverage@10 against ndcg@10' in chart


def test_one_model_has_nothing_to_be_compared_with() -> None:
    found = page(metrics({"als": FIGURES["als"]}))
    assert "One model alone has nothing to be compared with." in found
    assert 'class="n best"' not in found


def test_labels_of_the_data_cannot_inject_markup() -> None:
    figures = {model: {**FIGURES[model], f"ndcg@10/{EVIL}": 0.1} for model in FIGURES}
    assert EVIL not in page(metrics(figures), COMPARISONS)


def test_validation_is_shown_apart() -> None:
    found = page(pd.concat([metrics(), metrics({"als": {"ndcg@10": 0.77}}, "validation")]), COMPARISONS)
    assert found.index("Accuracy at 10, validation") < found.index("0.7700")


def boxes(chart: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of each label, of letters 6 px wide and 11 px high."""
    labels = re.findall(r'class="label[^>]* x="([-0-9.]+)" y="([-0-9.]+)">([^<]*)<', chart)
    return [(float(x), float(y) - 9, float(x) + 6 * len(text), float(y) + 2) for x, y, text in labels]


def test_labels_of_points_that_lie_together_do_not_cover_each_other_or_leave_the_chart() -> None:
    places = [(0.3, 0.3), (0.31, 0.3), (0.3, 0.31), (0.305, 0.305), (0.9, 0.9), (0.1, 0.1)]
    points = {f"model-{n}": ((x, x, x), (y, y, y)) for n, (x, y) in enumerate(places)}
    found = boxes(charts.scatter(points, "x", "y"))
    assert len(found) == 6
    for n, one in enumerate(found):
        assert one[0] >= 0 and one[2] <= 460
        for other in found[:n]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_intervals_are_drawn_in_order_and_said_in_words() -> None:
    chart = charts.intervals({"als": (0.3, 0.2, 0.4), "mf": (0.1, 0.0, float("nan"))}, "ndcg@10")
    assert 'aria-label="ndcg@10: als 0.3 (0.2 to 0.4)"' in chart
    assert charts.intervals({}, "ndcg@10") == ""
