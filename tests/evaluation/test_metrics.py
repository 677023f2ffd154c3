"""The metric kernel against figures worked out by hand, and the laws that hold for any list."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.evaluation import metrics

NAMES = ("ndcg", "precision", "recall", "map", "mrr", "hit-rate", "f1", "map-min")
# Which ranks hit, and how many relevant items there are beyond those in the list.
lists = st.lists(st.booleans(), min_size=1, max_size=12)


def of(hits: list[bool], relevant: int, k: int) -> dict[str, float]:
    values = metrics.per_user(np.array([hits]), np.array([relevant]), k)
    return {name: float(value[0]) for name, value in values.items()}


@pytest.mark.parametrize(
    ("hits", "relevant", "k", "expected"),
    [
        # ranks 2 and 3 hit, nothing else is relevant
        (
            [False, True, True],
            2,
            3,
            ((1 / log2(3) + 1 / 2) / (1 + 1 / log2(3)), 2 / 3, 1.0, (1 / 2 + 2 / 3) / 2, 1 / 2, 1.0)
            + (4 / 5, (1 / 2 + 2 / 3) / 2),
        ),
        # all k places hit out of five: NDCG's ideal is min(k, n), MAP divides by all five, its other convention by two
        ([True, True], 5, 2, (1.0, 1.0, 2 / 5, 2 / 5, 1.0, 1.0, 4 / 7, 1.0)),
        # a list of two where k is four: precision still divides by k
        ([True, False], 1, 4, (1.0, 1 / 4, 1.0, 1.0, 1.0, 1.0, 2 / 5, 1.0)),
        # what lies beyond rank k does not count
        ([False, False, True], 1, 2, (0.0,) * 8),
        # a user without any recommendation
        ([], 3, 2, (0.0,) * 8),
    ],
)
def test_figures_are_those_worked_out_by_hand(
    hits: list[bool], relevant: int, k: int, expected: tuple[float, ...]
) -> None:
    assert of(hits, relevant, k) == pytest.approx(dict(zip(NAMES, expected, strict=True)))


@settings(deadline=None)
@given(lists, st.integers(0, 5), st.integers(1, 12))
def test_every_figure_lies_between_none_and_all(hits: list[bool], others: int, k: int) -> None:
    values = of(hits, max(1, sum(hits) + others), k)
    assert all(0 <= value <= 1 + 1e-12 for value in values.values())


@settings(deadline=None)
@given(lists, st.integers(0, 5), st.data())
def test_a_hit_one_rank_higher_lowers_nothing(hits: list[bool], others: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(hits) - 1))
    better = [*hits[:rank], *sorted(hits[rank : rank + 2], reverse=True), *hits[rank + 2 :]]
    relevant = max(1, sum(hits) + others)
    before, after = of(hits, relevant, len(hits)), of(better, relevant, len(hits))
    assert all(after[name] >= before[name] - 1e-12 for name in NAMES)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(1, 10))
def test_the_best_possible_list_has_an_ndcg_of_one(relevant: int, k: int) -> None:
    hits = [rank < relevant for rank in range(k)]
    assert of(hits, relevant, k)["ndcg"] == pytest.approx(1.0)


@settings(deadline=None)
@given(lists, st.integers(0, 5), st.integers(1, 12))
def test_the_two_conventions_of_map_differ_by_what_a_list_can_hold(hits: list[bool], others: int, k: int) -> None:
    relevant = max(1, sum(hits) + others)
    values = of(hits, relevant, k)
    assert values["map-min"] * min(k, relevant) == pytest.approx(values["map"] * relevant)


@settings(deadline=None)
@given(lists, st.integers(0, 5), st.integers(1, 12))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(hits: list[bool], others: int, k: int) -> None:
    values = of(hits, max(1, sum(hits) + others), k)
    precision, recall = values["precision"], values["recall"]
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert values["f1"] == pytest.approx(expected)
