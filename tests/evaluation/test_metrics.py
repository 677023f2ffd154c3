"""The metric kernel against figures worked out by hand, and the laws that hold for any list."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.evaluation import metrics

NAMES = ("ndcg", "precision", "recall", "map", "mrr", "hit-rate")
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
            ((1 / log2(3) + 1 / 2) / (1 + 1 / log2(3)), 2 / 3, 1.0, (1 / 2 + 2 / 3) / 2, 1 / 2, 1.0),
        ),
        # all k places hit out of five: NDCG's ideal is min(k, n), MAP divides by all five
        ([True, True], 5, 2, (1.0, 1.0, 2 / 5, 2 / 5, 1.0, 1.0)),
        # a list of two where k is four: precision still divides by k
        ([True, False], 1, 4, (1.0, 1 / 4, 1.0, 1.0, 1.0, 1.0)),
        # what lies beyond rank k does not count
        ([False, False, True], 1, 2, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        # a user without any recommendation
        ([], 3, 2, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
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


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_shares_of_the_users_add_up_to_all_of_them(seed: int, shares: int) -> None:
    random = np.random.default_rng(seed)
    users, hits = np.arange(20), random.random((20, 5)) < 0.3
    relevant = hits.sum(axis=1) + 1
    whole = metrics.summarise(users, hits, relevant, (2, 5), samples=10)
    parts = [
        metrics.summarise(users[chosen], hits[chosen], relevant[chosen], (2, 5), samples=10)
        for chosen in np.array_split(random.permutation(20), shares)
    ]
    total = sum(parts[1:], parts[0])
    assert total.users == whole.users
    np.testing.assert_allclose(total.total, whole.total)
    np.testing.assert_allclose(total.resampled, whole.resampled)
    np.testing.assert_allclose(total.resampled_users, whole.resampled_users)


def finished(hits: np.ndarray[Any, Any], samples: int) -> dict[str, dict[str, float]]:
    sums = metrics.summarise(np.arange(len(hits)), hits, np.ones(len(hits), np.int64), (1,), samples)
    return metrics.finish(sums, (1,), {})


def test_the_interval_is_that_of_the_mean_of_independent_users() -> None:
    hits = np.random.default_rng(2).random((4000, 1)) < 0.3
    figure = finished(hits, samples=2000)["hit-rate@1"]
    half_width = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
    assert figure["mean"] == pytest.approx(hits.mean())
    assert figure["mean"] - figure["low"] == pytest.approx(half_width, rel=0.15)
    assert figure["high"] - figure["mean"] == pytest.approx(half_width, rel=0.15)


def test_where_users_do_not_differ_the_interval_is_a_point() -> None:
    assert finished(np.ones((50, 1), bool), samples=100)["recall@1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_without_samples_the_interval_is_the_mean() -> None:
    hits = np.array([[True], [False]])
    assert finished(hits, samples=0)["hit-rate@1"] == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_blocks_of_users_do_not_change_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    hits = np.random.default_rng(3).random((100, 1)) < 0.5
    whole = finished(hits, samples=50)
    monkeypatch.setattr(metrics, "_USERS_AT_ONCE", 7)
    assert finished(hits, samples=50)["ndcg@1"] == pytest.approx(whole["ndcg@1"])
