from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from avrec_spark.recommend import kernels
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
        if draw(st.booleans()):
            right = np.asfortranarray(right)
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
        "block": (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
    }


@settings(deadline=None, max_examples=150)
@given(problems())
def test_the_lists_are_those_of_brute_force(problem: dict[str, Any]) -> None:
    users, k, seen, candidates = (problem[name] for name in ("users", "k", "seen", "candidates"))
    marked = None if seen is None else csr_matrix(seen[users])
    indices, scores = top_k(problem["sources"], users, k, marked, candidates, *problem["block"])
    expected = brute_force(problem["scores"][users], k, None if seen is None else seen[users], candidates)
    assert indices.shape == scores.shape == (len(users), k)
    for row, values, wanted in zip(indices, scores, expected, strict=True):
        assert [(i, s) for i, s in zip(row.tolist(), values.tolist(), strict=True) if i >= 0] == wanted
        assert (row[len(wanted) :] == -1).all() and (values[len(wanted) :] == 0).all()


@pytest.mark.parametrize("k", [1, 100, 300, 2000])
@pytest.mark.parametrize("levels", [1, 40, 10**6])
@pytest.mark.parametrize("order", ["shuffled", "rising", "falling"])
def test_the_lists_of_many_items_are_those_of_a_sort(k: int, levels: int, order: str) -> None:
    # More items than the selection collects before it halves what it has, and than it looks at in one step.
    random = np.random.default_rng(levels + k)
    scores = random.integers(-levels, levels, (3, 1500)).astype(np.float32)
    if order != "shuffled":
        scores = np.sort(scores, axis=1)[:, :: 1 if order == "rising" else -1]
    seen = random.random(scores.shape) < 0.2
    allowed = np.sort(random.permutation(1500)[:1400])
    source = ScoreSource(np.eye(3, dtype=np.float32), scores)
    indices, values = top_k([source], np.arange(3), k, csr_matrix(seen), allowed, block_users=2, block_items=500)
    for user in range(3):
        items = allowed[~seen[user, allowed]]
        wanted = items[np.lexsort((items, -scores[user, items]))][:k]
        assert indices[user, : len(wanted)].tolist() == wanted.tolist()
        assert values[user, : len(wanted)].tolist() == scores[user, wanted].tolist()
        assert (indices[user, len(wanted) :] == -1).all()


def test_equal_scores_are_ordered_by_item() -> None:
    flat = ScoreSource(np.ones((1, 1), np.float32), np.array([[1, 2, 1, 2, 1]], np.float32))
    assert top_k([flat], np.array([0]), 4)[0].tolist() == [[1, 3, 0, 2]]
    signed = ScoreSource(np.ones((1, 1), np.float32), np.array([[-0.0, -1, 0.0, -0.0, 0.0]], np.float32))
    assert top_k([signed], np.array([0]), 5)[0].tolist() == [[0, 2, 3, 4, 1]]


def test_infinity_is_a_score_and_what_is_no_number_is_never_chosen() -> None:
    row = np.array([[np.nan, -np.inf, 3, np.inf, -np.nan, 3.4e38, -3.4e38, 1e-45, np.inf]], np.float32)
    indices, scores = top_k([ScoreSource(np.ones((1, 1), np.float32), row)], np.array([0]), 8)
    assert indices.tolist() == [[3, 8, 5, 2, 7, 6, -1, -1]]
    assert scores[0].tolist() == row[0, [3, 8, 5, 2, 7, 6]].tolist() + [0, 0]
    nothing = np.full((1, 1000), np.nan, np.float32)
    assert (top_k([ScoreSource(np.ones((1, 1), np.float32), nothing)], np.array([0]), 8)[0] == -1).all()


def test_marks_need_not_be_sorted_nor_is_the_callers_matrix_changed() -> None:
    source = ScoreSource(np.ones((1, 1), np.float32), np.array([[5, 4, 3, 2, 1]], np.float32))
    unsorted = csr_matrix((np.ones(3, bool), np.array([3, 0, 2]), np.array([0, 3])), shape=(1, 5))
    assert top_k([source], np.array([0]), 3, unsorted)[0].tolist() == [[1, 4, -1]]
    assert unsorted.indices.tolist() == [3, 0, 2]


@pytest.mark.parametrize("sparse", [False, True])
def test_memory_is_that_of_the_tiles_whatever_the_catalogue(sparse: bool) -> None:
    def peak(n_users: int, n_items: int) -> int:
        random = np.random.default_rng(0)
        left = random.normal(size=(n_users, 4)).astype(np.float32)
        right = random.normal(size=(4, n_items)).astype(np.float32)
        source = ScoreSource(csr_matrix(left) if sparse else left, right)
        tracemalloc.start()
        top_k([source], np.arange(n_users), 10, block_users=32, block_items=1000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1, 1)  # compiled loops are no memory of a call
    # The result is 80 bytes a user, the item numbers 8 bytes an item; all scores would be 80 MB.
    assert peak(400, 50_000) < 32 * (4 * 1000 + 24 * 256) + 400 * 80 + 50_000 * 8 + 100_000


def test_shapes_that_do_not_fit_are_refused() -> None:
    one, two = (ScoreSource(np.ones((3, 1), np.float32), np.ones((1, n), np.float32)) for n in (1, 2))
    with pytest.raises(ValueError, match="score the same items"):
        top_k([one, two], np.arange(3), 1)
    with pytest.raises(ValueError, match="a row for each user"):
        top_k([one], np.arange(3), 1, csr_matrix((2, 1), dtype=bool))
    with pytest.raises(ValueError, match="has no product"):
        top_k([ScoreSource(csr_matrix((3, 2), dtype=np.float32), np.ones((1, 4), np.float32))], np.arange(3), 1)


def test_a_loop_is_compiled_where_nothing_can_be_kept() -> None:
    # numba keeps nothing of code that comes from no file, as of an installation that it may not write beside.
    namespace: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", namespace)
    assert kernels.compiled(namespace["twice"])(21) == 42


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
