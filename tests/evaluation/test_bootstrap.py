"""Sums that add up, and what the bootstrap says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.evaluation import bootstrap
from avrec_spark.evaluation.bootstrap import Sums, figures, poisson_counts


def interval(values: np.ndarray[Any, Any], samples: int) -> dict[str, float]:
    sums = Sums.of_means(np.arange(len(values)), values[:, None].astype(float), samples)
    return figures(["x"], sums.means()).get("x", {})


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_shares_of_the_users_add_up_to_all_of_them(seed: int, shares: int) -> None:
    random = np.random.default_rng(seed)
    users, values = np.arange(20), random.random((20, 3))
    values[random.random((20, 3)) < 0.2] = np.nan
    whole = Sums.of_means(users, values, samples=10)
    parts = [
        Sums.of_means(users[chosen], values[chosen], samples=10)
        for chosen in np.array_split(random.permutation(20), shares)
    ]
    total = sum(parts[1:], parts[0])
    np.testing.assert_allclose(total.total, whole.total)
    np.testing.assert_allclose(total.count, whole.count)


def test_sums_survive_the_way_from_a_task_to_the_driver() -> None:
    sums = Sums.of_means(np.arange(3), np.array([[1.0, np.nan], [2.0, 3.0], [0.0, 0.5]]), samples=4)
    again = Sums.unpack(sums.pack(), columns=2)
    np.testing.assert_array_equal(again.total, sums.total)
    np.testing.assert_array_equal(again.count, sums.count)


def test_the_interval_is_that_of_the_mean_of_independent_users() -> None:
    hits = np.random.default_rng(2).random(4000) < 0.3
    figure = interval(hits, samples=2000)
    half_width = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
    assert figure["mean"] == pytest.approx(hits.mean())
    assert figure["mean"] - figure["low"] == pytest.approx(half_width, rel=0.15)
    assert figure["high"] - figure["mean"] == pytest.approx(half_width, rel=0.15)


def test_where_users_do_not_differ_the_interval_is_a_point() -> None:
    assert interval(np.ones(50), samples=100) == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_one_user_has_a_point_and_not_the_samples_that_miss_him() -> None:
    assert interval(np.array([0.25]), samples=100) == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_without_samples_the_interval_is_the_mean() -> None:
    assert interval(np.array([True, False]), samples=0) == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_users_for_whom_a_figure_is_undefined_do_not_count() -> None:
    assert interval(np.array([1.0, np.nan, 0.0, np.nan]), samples=0)["mean"] == 0.5
    assert interval(np.array([np.nan]), samples=10) == {}


def test_blocks_of_users_do_not_change_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(100)
    whole = interval(values, samples=50)
    monkeypatch.setattr(bootstrap, "USERS_AT_ONCE", 7)
    assert interval(values, samples=50) == pytest.approx(whole)


def test_a_user_is_in_the_same_samples_wherever_he_is() -> None:
    users = np.array(["ann", "bob", "cem"], object)
    np.testing.assert_array_equal(poisson_counts(users, 30)[:, 2], poisson_counts(users[2:], 30)[:, 0])


def test_samples_of_one_user_are_independent_of_those_of_the_next() -> None:
    counts = poisson_counts(np.arange(2000), 200)
    between_users, between_samples = np.corrcoef(counts.T[:100]), np.corrcoef(counts[:100])
    for correlations, n in ((between_users, 200), (between_samples, 2000)):
        others = correlations[~np.eye(100, dtype=bool)]
        assert others.std() == pytest.approx(1 / np.sqrt(n), rel=0.1)
        assert np.abs(others).max() < 6 / np.sqrt(n)
