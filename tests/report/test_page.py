from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from avrec_spark.report import charts
from avrec_spark.report.data import Clip, Labels, ReportData, Shown, UserStory
from avrec_spark.report.page import render

SECTIONS = (
    *("intake", "catalogue", "labels", "features", "map", "training", "metrics", "users", "new-items", "neighbours"),
    "provenance",
)
EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "input", "hr", "circle", "line", "polyline"}


GATES = ["by", "group", "items", "modality", "gate"]


def full() -> ReportData:
    clip = Clip("a1", EVIL, b"\xff\xd8\xff", 7.0)
    broken = Clip("b2", "坏文件", None, None, "corrupt", "not_media")
    metrics = [
        ("popular", "test", "ndcg@10", 0.1, 0.09, 0.11),
        ("ease", "test", "ndcg@10", 0.25, 0.24, 0.26),
        ("popular", "test", "ndcg@20", 0.3, 0.3, 0.3),
    ]
    return ReportData(
        run_id="r1",
        jobs=pd.DataFrame({"job": ["catalog"], "seconds": [75.0], "counts": [{"rows_in": 2}]}),
        quarantine=pd.DataFrame(
            [("events.jsonl", "unknown_item", "No such item.", 5, EVIL)],
            columns=["source", "reason", "detail", "count", "example"],
        ),
        items=2,
        media_statuses={"ok": 1, "corrupt": 1},
        events_in=1234567,
        acts=1000,
        impressions=2000,
        users=7,
        contact_sheet=[broken, clip],
        coverage=pd.DataFrame(
            [("visual", "net", "1", 1280, 1, 0.5)],
            columns=["modality", "encoder", "encoder_version", "dimension", "items", "share"],
        ),
        curves=pd.DataFrame(
            [("mf", "loss", 1, 3.0), ("mf", "loss", 2, 2.0)], columns=["model", "metric", "epoch", "value"]
        ),
        metrics=pd.DataFrame(metrics, columns=["model", "split", "metric", "mean", "low", "high"]),
        champion={"model": "ease", "metric": "ndcg@10", "value": 0.25, "decision": "ease is the champion."},
        gates=pd.DataFrame([("", "all items", 2, "visual", 0.75)], columns=GATES),
        stories=[UserStory("u1", [Shown(clip, "like")], [Shown(broken, "like a1", 0.5)], history_items=25)],
        neighbours=[(clip, {"visual": [Shown(broken, score=0.9)]})],
        lineage={"bronze.catalog": 3},
    )


class Checker(HTMLParser):
    """Fails on tags that close in another order than they opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())


@pytest.mark.parametrize("data", [full(), ReportData(run_id="empty")], ids=["full", "empty"])
def test_the_page_is_well_formed_and_has_every_section(data):
    page = render(data)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    for section in SECTIONS:
        assert f'<section id="{section}">' in page


def test_texts_of_the_data_cannot_inject_markup():
    page = render(full())
    assert EVIL not in page
    assert "&lt;script&gt;alert(" in page


def test_nothing_is_fetched_from_outside():
    page = render(full())
    assert "http:" not in page and "https:" not in page and "@import" not in page


def test_a_history_that_is_shown_in_part_says_of_how_many():
    assert "latest first · 1 of 25" in " ".join(render(full()).split())
    whole = UserStory("u1", [Shown(Clip("a1", "A"))], [], history_items=1)
    assert "1 of 1" not in render(dataclasses.replace(full(), stories=[whole]))


def test_an_empty_run_says_in_sentences_what_there_is_not():
    page = render(ReportData(run_id="empty"))
    for sentence in (
        "This run read no behaviour.",
        "Nothing was refused.",
        "The catalogue has no item to show.",
        "No features have been computed.",
        "No model of this run was trained by epochs.",
        "No model was evaluated in this run.",
        "This run made no recommendations.",
        "No neighbours have been computed.",
        "No labels were learnt in this run.",
        "There are no vectors to draw a map of.",
    ):
        assert sentence in page


def test_the_metric_table_ranks_models_marks_the_best_and_compares_with_popular():
    page = " ".join(render(full()).split())
    assert page.index('scope="row">ease') < page.index('scope="row">popular')
    assert '<td class="n best">0.2500<small>0.240–0.260</small></td>' in page
    assert "2.50 ×" in page
    # The first cut-off only: one table is for reading.
    assert "ndcg@20" not in page


def test_figures_of_segments_and_groups_are_left_to_the_comparison():
    rows = [("ease", "test", "ndcg@10/new", 0.77, 0.7, 0.8), ("ease", "test", "exposure@10/ann", 0.66, 0.6, 0.7)]
    metrics = pd.concat([full().metrics, pd.DataFrame(rows, columns=full().metrics.columns)])
    page = render(dataclasses.replace(full(), metrics=metrics, comparison="comparison.html"))
    assert "0.7700" not in page and "0.6600" not in page
    assert '<a href="comparison.html">' in page


def test_figures_are_written_for_people():
    page = render(full())
    assert "1,234,567" in page
    assert "1 min 15 s" in page
    assert "75 %" in page


def test_a_chart_describes_itself_and_labels_every_line():
    chart = charts.lines({"mf": [(1, 3.0), (2, 2.0)], "fusion": [(1, 3.0), (2, 2.0)]}, "epoch", "Loss")
    assert 'aria-label="Loss by epoch: mf ends at 2; fusion ends at 2"' in chart
    heights = [
        float(part.split('"')[0]) for part in chart.split('class="label')[1:] for part in [part.split(' y="')[1]]
    ]
    assert abs(heights[0] - heights[1]) >= 14
    assert charts.lines({}, "epoch", "Loss") == ""


def with_first_row(frame, **values):
    """A copy whose first row has other values; None and NaN stay as they are."""
    changed = frame.astype(object)
    for name, value in values.items():
        changed.at[0, name] = value
    return changed


NAN = float("nan")
GAPS = {
    "a refusal without an example": {"quarantine": with_first_row(full().quarantine, example=None, detail=None)},
    "a job without a time": {"jobs": with_first_row(full().jobs, seconds=NAN).astype({"seconds": float})},
    "a feature without a width": {"coverage": with_first_row(full().coverage, dimension=None, share=NAN)},
    "a metric that is not a number": {"metrics": with_first_row(full().metrics, mean=NAN).astype({"mean": float})},
    "a gate that is not a number": {"gates": full().gates.assign(gate=NAN)},
    "a neighbour without a similarity": {"neighbours": [(Clip("a", "A"), {"visual": [Shown(Clip("b", "B"))]})]},
}


@pytest.mark.parametrize("gap", GAPS.values(), ids=GAPS.keys())
def test_a_value_that_is_missing_becomes_a_dash_and_never_breaks_the_page(gap):
    page = render(dataclasses.replace(full(), **gap))
    shown = re.sub(r"<style>.*</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|None)\b", shown)
    assert not re.search(r"width:nan|nan,|,nan", page)


def test_of_gini_coefficients_the_smallest_is_the_best():
    rows = [("mf", "test", "gini@10", 0.9, 0.9, 0.9), ("ease", "test", "gini@10", 0.4, 0.4, 0.4)]
    metrics = pd.concat([full().metrics, pd.DataFrame(rows, columns=full().metrics.columns)])
    page = render(dataclasses.replace(full(), metrics=metrics))
    assert '<td class="n best">0.4000</td>' in page
    assert '<td class="n">0.9000</td>' in page


def test_a_model_that_lacks_a_metric_keeps_its_row():
    lacking = pd.DataFrame([("als", "test", "recall@10", 0.5, 0.4, 0.6)], columns=full().metrics.columns)
    page = " ".join(render(dataclasses.replace(full(), metrics=pd.concat([full().metrics, lacking]))).split())
    assert page.index('scope="row">popular') < page.index('scope="row">als')
    assert '<td class="n">–</td>' in page


def test_a_run_of_media_alone_shows_its_media_and_says_what_is_not_there():
    nothing = ReportData(run_id="").metrics
    media = dataclasses.replace(full(), events_in=0, acts=0, users=0, champion=None, stories=(), metrics=nothing)
    page = render(media)
    assert "坏文件" in page
    assert "This run read no behaviour." in page
    assert "No model was evaluated in this run." in page


def test_a_loss_that_is_not_finite_is_left_out_of_the_chart():
    chart = charts.lines({"mf": [(1, 3.0), (2, NAN), (3, float("inf"))], "lost": [(1, NAN)]}, "epoch", "Loss")
    assert "mf ends at 3" in chart
    assert not re.search(r"\b(nan|inf|lost)\b", chart)
    assert charts.lines({"lost": [(1, NAN)]}, "epoch", "Loss") == ""


def test_labels_of_many_lines_stay_inside_the_chart():
    chart = charts.lines({f"m{number}": [(1, 3.0), (2, 1.0)] for number in range(8)}, "epoch", "Loss")
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', chart)[1])
    labels = [float(found) for found in re.findall(r'class="label[^>]* y="([-0-9.]+)"', chart)]
    assert len(labels) == 8
    assert all(0 < label < height for label in labels)


def test_a_job_shows_its_rows_in():
    assert "rows in 2" in render(full())


def test_the_page_links_to_the_labels_to_review_where_there_are_any():
    assert 'href="review.html"' in render(dataclasses.replace(full(), labels=Labels(review="review.html")))
    assert "review.html" not in render(full())


def test_what_was_shown_is_not_counted_among_what_users_did():
    page = re.sub(r"<[^>]+>", "", render(full()))
    assert (
        "1,234,567 events came in: 1,000 became interactions of 7 users, and 2,000 say what users were shown." in page
    )
