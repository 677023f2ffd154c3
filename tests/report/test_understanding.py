"""What the page says of the items themselves: gates, map, labels, the worth of modalities, new items."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from avrec_spark.report import understanding
from avrec_spark.report.data import (
    Ablation,
    Clip,
    ItemMap,
    Labels,
    NewItem,
    NewItems,
    Point,
    Reason,
    ReportData,
    Shown,
    Tagged,
)
from avrec_spark.report.page import render
from avrec_spark.report.projection import on_a_plane

EVIL = "</script><script>alert('x')</script>"
JPEG = b"\xff\xd8\xff"


def text(**given: object) -> str:
    """What a reader sees of a page that has only this."""
    page = re.sub(r"<(style|script)[ >].*?</\1>", "", render(dataclasses.replace(ReportData("r"), **given)), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


# -- gates -------------------------------------------------------------------------------------------------------------


def test_gates_are_a_row_a_group_with_all_items_first_and_a_dash_where_the_group_lacks_the_modality():
    rows = [
        ("missing", "audio", 3, "text", 0.9),
        ("missing", "audio", 3, "audio", None),
        ("", "all items", 10, "text", 0.5),
        ("", "all items", 10, "audio", 0.25),
    ]
    gates = pd.DataFrame(rows, columns=["by", "group", "items", "modality", "gate"])
    found = understanding.gates(gates)
    assert found is not None
    assert (found["modalities"], list(found["groups"])) == (["audio", "text"], ["", "missing"])
    assert found["groups"]["missing"] == [{"group": "audio", "items": 3, "gates": [None, 0.9]}]
    assert "all items 10 25 % 50 % By missing audio 3 – 90 %" in text(gates=gates)


# -- the map -----------------------------------------------------------------------------------------------------------


def test_what_points_one_way_lies_together_on_the_map():
    generator = np.random.default_rng(0)
    directions = np.eye(3).repeat(20, axis=0)
    places = on_a_plane(directions * generator.uniform(1, 9, (60, 1)) + generator.normal(0, 0.05, (60, 3)))
    assert (places.min(axis=0), places.max(axis=0)) == (pytest.approx([0, 0]), pytest.approx([1, 1]))
    group = np.arange(60) // 20
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.ones((12, 4)), np.zeros((2, 1)), np.array([[1.0], [2.0]])])
def test_one_item_or_items_that_are_all_the_same_have_a_place_all_the_same(vectors):
    places = on_a_plane(vectors)
    assert places.shape == (len(vectors), 2)
    assert ((places >= 0) & (places <= 1)).all()


def a_map(points: list[Point], items: int | None = None) -> ItemMap:
    return ItemMap("fused", len(points) if items is None else items, points)


def test_a_point_says_its_name_its_group_and_whether_anybody_touched_it():
    points = [Point(Clip("a", EVIL, JPEG), 0.0, 1.0, "news"), Point(Clip("b", None), 1.0, 0.0, touched=False)]
    page = render(ReportData("r", item_map=a_map(points)))
    assert page.count(EVIL) == 0
    said = json.loads(re.search(r'id="map-items">(.*?)</script>', page)[1])
    assert said == [[EVIL, "news", "data:image/jpeg;base64,/9j/"], ["Untitled (b)", "nobody has acted on it", ""]]
    circles = re.findall(r'<circle class="([^"]*)" data-item="(\d)" cx="([\d.]+)" cy="([\d.]+)"', page)
    assert circles == [("dot plain hollow", "1", "1064.0", "584.0")]
    pictures = re.findall(r'<image data-item="(\d)" href="[^"]*" x="([\d.]+)" y="([\d.]+)"', page)
    assert pictures == [("0", "4.0", "16.0")]


def test_a_map_of_a_sample_says_so():
    point = Point(Clip("a", "A"), 0.5, 0.5)
    assert "1 of 100,000 items, drawn at random." in text(item_map=a_map([point], 100_000))
    assert "drawn at random" not in text(item_map=a_map([point]))


def test_pictures_on_the_map_cover_neither_each_other_nor_a_crowd():
    generator = np.random.default_rng(1)
    crowd = [Point(Clip(f"c{n}", None, JPEG), 0.5, 0.5) for n in range(20)]
    points = [*crowd, *(Point(Clip(str(n), None, JPEG), *generator.random(2)) for n in range(200))]
    found = understanding.item_map(a_map(points))
    assert found is not None
    corners = [(one["x"], one["y"]) for one in found["pictures"]]
    assert len(corners) > 20
    assert min(one["number"] for one in found["pictures"]) >= len(crowd)
    assert len(found["pictures"]) + len(found["dots"]) == 220
    for n, (x, y) in enumerate(corners):
        assert all(abs(x - left) >= 64 or abs(y - top) >= 40 for left, top in corners[:n])


# -- labels ------------------------------------------------------------------------------------------------------------


def test_predicted_tags_stand_apart_from_the_declared_ones_beside_the_reliability_diagram():
    labels = Labels(
        chosen="mlp",
        quality=pd.DataFrame([("mlp", "test", "map", 0.75)], columns=["model", "split", "metric", "mean"]),
        reliability=pd.DataFrame([("calibrated", 0.2, 0.25, 40)], columns=["kind", "confidence", "share", "pairs"]),
        tagged=[Tagged(Clip("a", "A"), ["short"], [("portrait", 0.82)])],
        tagged_items=9,
        review="review.html",
    )
    page = render(ReportData("r", labels=labels))
    assert '<li class="chip">short</li><li class="chip guess">portrait 82 %</li>' in page
    assert "calibrated 0.20 0.25" in page
    assert "1 of 9 items with predicted tags" in text(labels=labels)
    assert "0.7500" in page


def test_labels_of_which_none_could_be_learnt_say_so():
    assert "No label could be learnt." in text(labels=Labels(review="review.html"))


# -- ablation ----------------------------------------------------------------------------------------------------------


def test_the_worth_of_a_modality_is_the_change_without_it_and_a_change_that_may_be_chance_is_marked():
    means = {"text alone": 0.1, "all modalities": 0.2, "without text": 0.15, "without audio": 0.19}
    metrics = pd.DataFrame({"model": list(means), "metric": "ndcg@10", "mean": list(means.values())})
    against = [
        {"model": one, "metric": "ndcg@10", "difference": mean - 0.2, "reference": 0.2, "low": mean - 0.21,
         "high": mean - 0.19, "significant": one != "without audio"}
        for one, mean in means.items() if one != "all modalities"
    ]  # fmt: skip
    ablation = Ablation("r7", metrics, pd.DataFrame(against))
    found = understanding.ablation(ablation)
    assert found is not None
    assert [row["variant"] for row in found["rows"]] == [
        "all modalities",
        "without text",
        "without audio",
        "text alone",
    ]
    assert "without text -0.05 (-0.06 to -0.04)" in found["chart"]
    said = text(ablation=ablation)
    assert "all modalities 0.2000 – without text 0.1500 -25.0 % without audio 0.1900 ≈ -5.0 %" in said
    assert "measured by run r7" in said


def test_an_ablation_that_was_not_measured_says_how_to():
    assert "Not measured: avrec run ablation" in text()


# -- new items ---------------------------------------------------------------------------------------------------------


def new_item(touched_by: int = 0) -> NewItem:
    reasons = [Reason("u1", 2, 0.5, Clip("h", "Harvest")), Reason("u2", 3, 0.25, None)]
    return NewItem(Clip("n", "Novelty"), touched_by, 12, reasons, [Shown(Clip("k", "Kin"), "audio, visual")])


def test_a_new_item_says_who_got_it_what_spoke_for_it_and_what_is_near():
    said = text(new_items=NewItems(5, 3, [new_item()]))
    assert "Items that nobody has acted on: 5; recommended of them: 3, those first that went to most users." in said
    assert "Novelty nobody has acted on it · recommended to 12" in said
    assert "Kin audio, visual" in said
    assert "Harvest user u1 · place 2 · 0.500" in said
    assert "No item of the history by itself user u2" in said


def test_where_every_item_is_known_the_least_known_ones_are_shown():
    said = text(new_items=NewItems(0, 0, [new_item(touched_by=4)]))
    assert "Every item that can be shown has been acted on. The recommended items of which least is known:" in said
    assert "preferred by 4 · recommended to 12" in said
