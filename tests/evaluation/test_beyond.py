"""Metrics beyond accuracy on rows that can be checked by hand."""

from __future__ import annotations

from math import log, log2, sqrt
from typing import Any

import pandas as pd
import pytest

from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.evaluation.catalogue import Catalogue
from avrec_spark.evaluation.executors import evaluate_numpy

# Items 1 to 5: four, two, two, one and no train users of four.
TRAIN = pd.DataFrame(
    {"user_id": ["ann", "bob", "cem", "dee", "ann", "bob", "cem", "dee", "ann"], "item_id": [1, 1, 1, 1, 2, 2, 3, 3, 4]}
)
VECTORS = pd.DataFrame({"item_id": [1, 2, 3, 4], "vector": [[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 0.0]]})
CATEGORIES = pd.DataFrame({"item_id": [1, 2, 3, 4], "categories": [["a"], ["b"], ["a", "b"], []]})
GROUPS = pd.DataFrame({"item_id": [1, 2, 3, 4, 5], "group": ["x", "x", "y", "y", "y"]})


def evaluate(shown: list[int], relevant: list[int], k: int, user: str = "ann", **given: Any) -> dict[str, float]:
    lists = pd.DataFrame({"user_id": user, "item_id": shown, "rank": range(1, len(shown) + 1)})
    truth = pd.DataFrame({"user_id": user, "item_id": relevant})
    figures = evaluate_numpy(lists, truth, (k,), n_items=6, bootstrap=0, **given)
    return {name: figure["mean"] for name, figure in figures.items()}


def test_novelty_and_popularity_are_means_over_what_is_shown() -> None:
    figures = evaluate([1, 3, 4], [9], 10, catalogue=Catalogue.from_frames(train=TRAIN))
    assert figures["novelty@10"] == pytest.approx((0 + 1 + 2) / 3)
    assert figures["popularity@10"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


def test_an_item_that_train_has_not_seen_is_as_novel_as_one_that_a_single_user_has() -> None:
    listed = evaluate([5], [9], 1, catalogue=Catalogue.from_frames(items=[5], train=TRAIN))
    unlisted = evaluate([5], [9], 1, catalogue=Catalogue.from_frames(train=TRAIN))
    for figures in (listed, unlisted):
        assert (figures["novelty@1"], figures["popularity@1"]) == (log2(4), 0.0)


def test_serendipity_counts_hits_that_the_popular_list_does_not_have() -> None:
    # With k = 2 the popular list is 1, 2 (2 and 3 are equally popular: the smaller id goes first).
    figures = evaluate([1, 3], [1, 3], 2, catalogue=Catalogue.from_frames(train=TRAIN))
    assert figures["serendipity@2"] == 1 / 2
    assert evaluate([2, 5], [2, 5], 2, catalogue=Catalogue.from_frames(train=TRAIN))["serendipity@2"] == 1 / 2
    assert evaluate([3, 4], [1], 2, catalogue=Catalogue.from_frames(train=TRAIN))["serendipity@2"] == 0.0


def test_popularity_lift_compares_the_list_with_the_history() -> None:
    given = {"catalogue": Catalogue.from_frames(train=TRAIN), "histories": TRAIN}
    # Cem has 1 and 3: (1 + 1/2) / 2. He is shown 2 and 4: (1/2 + 1/4) / 2.
    assert evaluate([2, 4], [9], 2, user="cem", **given)["popularity-lift@2"] == pytest.approx((3 / 8) / (3 / 4) - 1)


def test_diversity_is_the_mean_distance_of_pairs_with_vectors() -> None:
    catalogue = Catalogue.from_frames(vectors=VECTORS)
    # Cosines: 1–2 0, 1–3 and 2–3 1/√2; item 4 has no direction, item 9 no vector.
    figures = evaluate([1, 4, 2, 9, 3], [7], 5, catalogue=catalogue)
    assert figures["diversity@5"] == pytest.approx(1 - 2 * (1 / sqrt(2)) / 3, abs=1e-6)
    assert "diversity@5" not in evaluate([1, 4, 9], [7], 5, catalogue=catalogue)


def test_unexpectedness_is_the_mean_distance_to_the_history() -> None:
    given = {"catalogue": Catalogue.from_frames(vectors=VECTORS), "histories": TRAIN.query("item_id == 1")}
    figures = evaluate([3, 2], [7], 2, user="bob", **given)
    assert figures["unexpectedness@2"] == pytest.approx(1 - (1 / sqrt(2) + 0) / 2, abs=1e-6)


def test_miscalibration_is_the_divergence_from_the_categories_of_the_history() -> None:
    given = {"catalogue": Catalogue.from_frames(categories=CATEGORIES), "histories": TRAIN}
    # Cem's history of 1 and 3: 3/4 a, 1/4 b. Shown 1 and 2: half and half; shown 1 and 3: calibrated.
    q = {"a": 0.99 / 2 + 0.01 * 3 / 4, "b": 0.99 / 2 + 0.01 / 4}
    expected = 3 / 4 * log(3 / 4 / q["a"]) + 1 / 4 * log(1 / 4 / q["b"])
    assert evaluate([1, 2], [9], 2, user="cem", **given)["miscalibration@2"] == pytest.approx(expected)
    assert evaluate([1, 3], [9], 2, user="cem", **given)["miscalibration@2"] == pytest.approx(0.0, abs=1e-12)


def test_users_without_history_have_no_figure_that_needs_one() -> None:
    given = {
        "catalogue": Catalogue.from_frames(train=TRAIN, vectors=VECTORS, categories=CATEGORIES),
        "histories": TRAIN,
    }
    figures = evaluate([1, 2], [9], 2, user="new", **given)
    assert {"popularity-lift@2", "unexpectedness@2", "miscalibration@2"}.isdisjoint(figures)
    assert {"novelty@2", "diversity@2"} <= figures.keys()


def test_exposure_between_groups_weighs_places_by_rank() -> None:
    figures = evaluate([1, 3, 2], [9], 3, catalogue=Catalogue.from_frames(groups=GROUPS))
    x, y = 1 + 1 / 2, 1 / log2(3)
    assert figures["exposure@3/x"] == pytest.approx(x / (x + y))
    assert figures["group-parity@3"] == pytest.approx((y / 3) / (x / 2))
    assert figures["group-divergence@3"] == pytest.approx(x / (x + y) - 2 / 5)


def test_a_metric_is_only_there_when_its_input_is() -> None:
    beyond = {"novelty@2", "serendipity@2", "diversity@2", "miscalibration@2", "group-gini@2"}
    assert beyond.isdisjoint(evaluate([1, 2], [1], 2))


def test_an_item_with_two_groups_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 items have more than one group, the first is 1\."):
        Catalogue.from_frames(groups=pd.DataFrame({"item_id": [1, 1], "group": ["x", "y"]}))


def test_vectors_with_nan_or_of_two_widths_are_refused() -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        Catalogue.from_frames(vectors=pd.DataFrame({"item_id": [1], "vector": [[float("nan")]]}))
    with pytest.raises(DataError, match=r"different widths \(1, 2\)"):
        Catalogue.from_frames(vectors=pd.DataFrame({"item_id": [1, 2], "vector": [[1.0], [1.0, 2.0]]}))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(MissingColumnsError, match="The frame categories has no column categories"):
        Catalogue.from_frames(categories=pd.DataFrame({"item_id": [1], "category": ["a"]}))
