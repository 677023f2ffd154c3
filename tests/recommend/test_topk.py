from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from avrec_spark.recommend.topk import ScoreSource, nearest, top_k


def brute_force(
    scores: np.ndarray[Any, Any], k: int, seen: np.ndarray[Any, Any] | None, candidates: np.ndarray[Any, Any] | None
) -> list[list[tuple[int, float]]]:
    """For each row the k best (item, score), equal scores by item, seen items and others than candidates left out."""
    lists = []
    for user, row in enumerate(scores):
        items = range(len(row)) if candidates is None else candidates
        kept = [int(item) for item in items if seen is None or not seen[user, item]]
        lists.append([(item, float(row[item])) for item in sorted(kept, key=lambda item: (-row[item], item))[:k]])
    return lists


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Small integers, so that ties abound and sums are exact."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_users, n_items, d = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    sources, scores = [], np.zeros((n_users, n_items))
    for _ in range(draw(st.integers(1, 3))):
        left = random.integers(-2, 3, (n_users, d)).astype(np.float32)
        right = random.integers(-2, 3, (d, n_items)).astype(np.float32)
        weight = draw(st.sampled_from([1.0, 0.5, 2.0]))
        scores += weight * left @ right
        sides = [csr_matrix(side) if draw(st.booleans()) else side for side in (left, right)]
        sources.append(ScoreSource(*sides, weight=weight))
    some = st.booleans()
    return {
        "sources": sources,
        "scores": scores,
        "users": random.integers(0, n_users, draw(st.integers(0, 12))),
        "k": draw(st.integers(1, 14)),
        "seen": random.random((n_users, n_items)) < 0.4 if draw(some) else None,
        "candidates": random.permutation(n_items)[: draw(st.integers(0, n_items))] if draw(some) else None,
        "block_users": draw(st.integers(1, 5)),
    }


@settings(deadline=None, max_examples=150)
@given(problems())
def test_the_lists_are_those_of_brute_force(problem: dict[str, Any]) -> None:
    users, k, seen, candidates = (problem[name] for name in ("users", "k", "seen", "candidates"))
    marked = None if seen is None else csr_matrix(seen[users])
    indices, scores = top_k(problem["sources"], users, k, marked, candidates, problem["block_users"])
    expected = brute_force(problem["scores"][users], k, None if seen is None else seen[users], candidates)
    assert indices.shape == scores.shape == (len(users), k)
    for row, values, wanted in zip(indices, scores, expected, strict=True):
        assert [(i, s) for i, s in zip(row.tolist(), values.tolist(), strict=True) if i >= 0] == wanted
        assert (row[len(wanted) :] == -1).all() and (values[len(wanted) :] == 0).all()


def test_equal_scores_are_ordered_by_item() -> None:
    flat = ScoreSource(np.ones((1, 1), np.float32), np.array([[1, 2, 1, 2, 1]], np.float32))
    assert top_k([flat], np.array([0]), 4)[0].tolist() == [[1, 3, 0, 2]]


def test_nearest_leaves_the_item_itself_out() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    indices, cosines = nearest(vectors, np.array([0, 2]), 2)
    assert indices.tolist() == [[1, 2], [1, 0]]
    np.testing.assert_allclose(cosines, [[0.8, 0.0], [0.6, 0.0]], atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_influence_of_a_history_is_its_share_of_the_score(sparse: bool) -> None:
    weights = np.array([[0, 0.5, 0.1], [0.5, 0, 0.2], [0.1, 0.2, 0]], np.float32)
    source = ScoreSource(csr_matrix([[2.0, 1.0, 0.0]]), csr_matrix(weights) if sparse else weights, "history")
    influence = source.influence(0, np.array([0, 1]), np.array([2]))
    np.testing.assert_allclose(influence, [[0.2], [0.2]])
    assert influence.sum() == pytest.approx(source.scores(np.array([0]))[0, 2])


def test_the_influence_of_factors_is_a_cosine_in_which_popularity_has_no_part() -> None:
    # The last dimension is a bias: the same for all users, large for the popular item 2.
    left = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    right = np.array([[3, 0, 2], [4, 1, 0], [0.1, 9, 9]], np.float32)
    influence = ScoreSource(left, right).influence(0, np.array([0]), np.array([1, 2]))
    np.testing.assert_allclose(influence, [[0.8, 0.6]], atol=1e-6)
