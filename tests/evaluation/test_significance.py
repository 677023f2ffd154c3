"""Paired comparisons, and when they say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.evaluation.significance import against_best, compare, compare_frames, holm


def paired(n: int, effect: float, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    b = random.random(n)
    return b + random.normal(effect, spread, n), b


def test_the_t_test_is_scipys_and_the_interval_that_of_the_mean_difference() -> None:
    a, b = paired(500, 0.02)
    one = compare(a, b, samples=2000)
    assert one.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert one.difference == pytest.approx((a - b).mean())
    half = 1.96 * (a - b).std(ddof=1) / np.sqrt(500)
    assert (one.high - one.low) / 2 == pytest.approx(half, rel=0.15)
    assert one.significant
    assert one.warning == ""


def test_pairing_finds_what_unpaired_means_hide() -> None:
    a, b = paired(500, 0.03)
    assert stats.ttest_ind(a, b).pvalue > 0.1
    assert compare(a, b).p_t < 0.001
    assert compare(a, b).p_wilcoxon < 0.001


def test_the_detectable_effect_is_found_four_times_of_five() -> None:
    detectable = compare(*paired(200, 0.0)).detectable
    found = [compare(*paired(200, detectable, seed=seed), samples=0).significant for seed in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_without_a_difference_one_in_twenty_is_found() -> None:
    found = [compare(*paired(100, 0.0, seed=seed), samples=0).significant for seed in range(600)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)


def test_a_comparison_without_power_says_how_many_users_it_would_take() -> None:
    a, b = paired(50, 0.0, spread=0.5, seed=1)
    one = compare(a, b, metric="ndcg@10", relevant=0.05)
    assert not one.significant
    needed = int(np.ceil(50 * (one.detectable / 0.05) ** 2))
    assert f"needs about {needed:,} users" in one.warning
    assert one.warning.startswith("ndcg@10: no power. With 50 users")


def test_enough_users_without_a_difference_need_no_warning() -> None:
    assert compare(*paired(5000, 0.0, seed=3), relevant=0.02).warning == ""


def test_equal_models_do_not_differ() -> None:
    values = np.array([0.1, 0.5, 0.3])
    one = compare(values, values, relevant=0.01)
    assert (one.difference, one.low, one.high, one.p_t, one.p_wilcoxon) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert one.warning == ""


def test_one_user_proves_nothing() -> None:
    one = compare(np.array([0.9]), np.array([0.1]), metric="mrr@5")
    assert (one.p_t, one.p_wilcoxon, one.significant) == (1.0, 1.0, False)
    assert one.warning == "mrr@5: 1 users cannot be compared with a test; nothing follows from them."


def test_users_without_a_figure_are_left_out_in_pairs() -> None:
    one = compare(np.array([1.0, np.nan, 0.5]), np.array([0.5, 0.3, np.nan]))
    assert (one.users, one.difference) == (1, 0.5)
    with pytest.raises(DataError, match="No user has a figure of the metric in both"):
        compare(np.array([np.nan]), np.array([1.0]))


def test_frames_are_paired_by_user_whatever_their_order() -> None:
    b = pd.DataFrame({"user_id": ["x", "y", "z"], "m": [0.1, 0.2, 0.3]})
    a = b.assign(m=b["m"] + [0.1, 0.2, 0.3]).iloc[::-1]
    found = compare_frames({"a": a, "b": b, "same": b}, reference="b", metric="m")
    assert found.keys() == {"a", "same"}
    assert found["a"].difference == pytest.approx(0.2)
    assert found["a"].adjusted == pytest.approx(min(1.0, 2 * found["a"].p_t))
    assert found["same"].difference == 0.0


def test_frames_of_other_users_or_without_the_metric_are_refused() -> None:
    b = pd.DataFrame({"user_id": [1, 2], "m": [0.1, 0.2]})
    with pytest.raises(DataError, match="a and b have other users"):
        compare_frames({"a": b.assign(user_id=[1, 3]), "b": b}, "b", "m")
    with pytest.raises(MissingColumnsError, match="The figures of b has no column n"):
        compare_frames({"b": b}, "b", "n")


def test_holm_keeps_the_order_of_the_findings() -> None:
    assert holm([0.04, 0.001, 0.03, 0.9]) == pytest.approx([0.09, 0.004, 0.09, 0.9])
    assert holm([]) == []


def test_every_metric_has_its_own_best_and_of_gini_like_ones_the_smallest() -> None:
    users = pd.DataFrame({"user_id": np.arange(40)})
    low, high = users["user_id"] % 7 / 100, users["user_id"] % 7 / 100 + 0.3
    frames = {
        "a": users.assign(**{"ndcg@5": high, "miscalibration@5": high, "novelty@5": np.nan}),
        "b": users.assign(**{"ndcg@5": low, "miscalibration@5": low, "novelty@5": low}),
    }
    found = against_best(frames, samples=20)
    # Nobody's novelty is known of a: nothing can be said of it.
    assert {metric: best for metric, (best, _) in found.items()} == {"ndcg@5": "a", "miscalibration@5": "b"}
    assert found["ndcg@5"][1]["b"].difference == pytest.approx(-0.3)
    assert found["miscalibration@5"][1]["a"].difference == pytest.approx(0.3)
