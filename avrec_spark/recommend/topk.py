"""The exact top-K engine: blocks of users × all items, for any model that says its scores as matrix products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

Matrix: TypeAlias = NDArray[np.float32] | csr_matrix
Kind = Literal["factors", "history", "constant"]


@dataclass(frozen=True)
class ScoreSource:
    """Scores as a product: `weight` × `left` [n_users, d] @ `right` [d, n_items]; either side dense or sparse.

    `kind` says what the product means, for explanations: user and item factors; the users' histories times item
    weights (then d = n_items); or the same scores for everybody.
    """

    left: Matrix
    right: Matrix
    kind: Kind = "factors"
    weight: float = 1.0

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[users, n_items], a new array."""
        product = self.left[users] @ self.right
        dense = product.toarray() if not isinstance(product, np.ndarray) else product
        return np.asarray(dense, np.float32) * np.float32(self.weight)

    def restricted(self, items: NDArray[np.int64]) -> ScoreSource:
        """The same with these items only, as columns in this order."""
        return replace(self, right=self.right[:, items])

    def influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32]:
        """float32[past, items]: how much each item of a user's past speaks for each item.

        Histories: the item's share of the score. Factors: the cosine of the two item vectors.
        """
        if self.kind == "history":
            taken = np.asarray(self.left[user, past].todense(), np.float32).ravel()
            weights = self.right[np.ix_(past, items)]
            dense = weights.toarray() if not isinstance(weights, np.ndarray) else weights
            return np.asarray(taken[:, None] * dense, np.float32)
        return np.asarray(self._tastes[:, past].T @ self._tastes[:, items], np.float32)

    @cached_property
    def _tastes(self) -> NDArray[np.float32]:
        """Unit item vectors [≤ d, n_items] of factors.

        A dimension in which all users are alike is a bias: it says how popular an item is, not whom it is for.
        """
        left, vectors = np.asarray(self.left), np.asarray(self.right)
        differs = left.max(axis=0) > left.min(axis=0)
        vectors = vectors[differs] if differs.any() else vectors
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-12), np.float32)


def top_k(
    sources: list[ScoreSource],
    users: NDArray[np.int64],
    k: int,
    seen: csr_matrix | None = None,
    candidates: NDArray[np.int64] | None = None,
    block_users: int = 1024,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best items of each user, exactly: (item indices int32[n, k], scores float32[n, k]), best first.

    `seen` [n, n_items] has a row a user asked for and marks the items to leave out; `candidates` are the distinct items
    to choose from. Equal scores are ordered by item index. Where fewer than k items remain the index is -1 and the
    score 0. Memory: a few times block_users × items, beside the result.

    >>> source = ScoreSource(np.eye(2, dtype=np.float32), np.array([[1, 3, 2], [5, 0, 5]], np.float32))
    >>> top_k([source], np.array([0, 1]), 2)[0].tolist()
    [[1, 2], [0, 2]]
    """
    n_items = sources[0].right.shape[1]
    items = np.arange(n_items) if candidates is None else np.sort(candidates)
    if candidates is not None:
        sources = [source.restricted(items) for source in sources]
    width = min(k, len(items))
    indices = np.full((len(users), k), -1, np.int32)
    best = np.zeros((len(users), k), np.float32)
    for start in range(0, len(users), block_users):
        block = users[start : start + block_users]
        scores = sources[0].scores(block)
        for source in sources[1:]:
            scores += source.scores(block)
        rows = slice(start, start + len(block))
        if seen is not None:
            _leave_out(scores, seen[rows], None if candidates is None else items)
        columns, values = _select(scores, width)
        found = np.isfinite(values)
        indices[rows, :width] = np.where(found, items[columns], -1)
        best[rows, :width] = np.where(found, values, 0)
    return indices, best


def nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k most similar other rows for some rows of unit vectors [n, d]: (indices int32[m, k], cosines float32)."""
    itself = identity(len(vectors), dtype=bool, format="csr")[rows]
    return top_k([ScoreSource(vectors, vectors.T)], rows, k, itself)


def _leave_out(scores: NDArray[np.float32], seen: csr_matrix, items: NDArray[np.int64] | None) -> None:
    if items is not None:
        seen = csr_matrix(seen[:, items])
    rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    scores[rows, seen.indices] = -np.inf


def _select(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Columns and values of the k largest of each row, in falling order, equal ones by column."""
    if k == 0:
        return np.empty((len(scores), 0), np.int64), np.empty((len(scores), 0), np.float32)
    if k < scores.shape[1]:
        columns = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        threshold = np.take_along_axis(scores, columns, axis=1).min(axis=1, keepdims=True)
        # argpartition takes any of the items that tie at the threshold; those rows are sorted in full.
        tied = np.flatnonzero((scores >= threshold).sum(axis=1) > k)
        columns[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :k]
    else:
        columns = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    columns.sort(axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
