"""The exact top-K engine: tiles of users × items, for any model that says its scores as matrix products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import sgemm
from scipy.sparse import csr_matrix, identity, issparse

from avrec_spark.recommend import kernels

Matrix: TypeAlias = NDArray[np.float32] | csr_matrix
# Of a tile with all items: fewer users would make the product of another source, with dense sides, slow.
_LEAST_USERS = 16
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
    block_users: int = 256,
    block_items: int = 512,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best items of each user, exactly: (item indices int32[n, k], scores float32[n, k]), best first.

    `seen` [n, n_items] has a row a user asked for and marks the items to leave out; `candidates` are the distinct items
    to choose from. The scores of the sources are added. Equal scores are ordered by item index; +inf is a score like
    any other, but an item whose score is NaN or -inf is never chosen. Where fewer than k items remain the index is -1
    and the score 0.

    Scores are computed and looked through in tiles of block_users × block_items, which should fit the second cache of
    a core. Memory beside arguments and result: block_users × (4 block_items + 24 max(256, 2k)) bytes, and a copy of the
    candidates' columns. A sparse right side needs whole rows: then a tile has as many users as the same memory holds,
    at least 16. The selection takes one core; the product of dense sides takes those that BLAS may use, which in a
    task of Spark is one.

    >>> source = ScoreSource(np.eye(2, dtype=np.float32), np.array([[1, 3, 2], [5, 0, 5]], np.float32))
    >>> top_k([source], np.array([0, 1]), 2)[0].tolist()
    [[1, 2], [0, 2]]
    """
    n_items = sources[0].right.shape[1]
    if any(source.right.shape[1] != n_items for source in sources) or (
        seen is not None and seen.shape[0] != len(users)
    ):
        raise ValueError("All sources score the same items, and seen has a row for each user.")
    items = np.arange(n_items) if candidates is None else np.sort(candidates)
    products = [_Product.of(source if candidates is None else source.restricted(items)) for source in sources]
    width = min(k, len(items))
    indices, best = np.full((len(users), k), -1, np.int32), np.zeros((len(users), k), np.float32)
    if width == 0:
        return indices, best
    if any(issparse(product.right) for product in products):
        block_users, block_items = max(_LEAST_USERS, block_users * block_items // len(items)), len(items)
    marked = csr_matrix((len(users), 0), dtype=bool) if seen is None else seen
    marked = marked if marked.has_sorted_indices else marked.sorted_indices()
    buffer = np.empty(min(block_users, len(users)) * min(block_items, len(items)), np.float32)
    for start in range(0, len(users), block_users):
        block = slice(start, start + block_users)
        lefts = [product.side(users[block]) for product in products]
        selection = kernels.Selection(width, len(items), marked, range(*block.indices(len(users))))
        for first in range(0, len(items), block_items):
            columns = items[first : first + block_items].astype(np.int32)
            tile = buffer[: selection.n_users * len(columns)].reshape(-1, len(columns))
            for number, (product, left) in enumerate(zip(products, lefts, strict=True)):
                product.write(left, first, tile, add=number > 0)
            selection.take(tile, columns)
        indices[block, :width], best[block, :width] = selection.best()
    return indices, best


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """The rows [n, d] at length 1, float32; rows of zeros stay.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k most similar other rows for some rows of unit vectors [n, d]: (indices int32[m, k], cosines float32)."""
    itself = identity(len(vectors), dtype=bool, format="csr")[rows]
    return top_k([ScoreSource(vectors, vectors.T)], rows, k, itself)


@dataclass(frozen=True)
class _Product:
    """A source made ready for tiles: float32, its right side dense in rows or columns, or sparse."""

    source: ScoreSource
    right: Matrix

    @classmethod
    def of(cls, source: ScoreSource) -> _Product:
        if source.left.shape[1] != source.right.shape[0]:
            raise ValueError(f"A score source of {source.left.shape} @ {source.right.shape} has no product.")
        right = source.right.astype(np.float32, copy=False)
        if issparse(right):
            right = csr_matrix(right)
        elif issparse(source.left) or not right.flags.forc:
            right = np.ascontiguousarray(right)
        return cls(source, right)

    def side(self, users: NDArray[np.int64]) -> Matrix:
        """The users' rows of the left side, times the weight."""
        left = self.source.left[users].astype(np.float32) * np.float32(self.source.weight)
        return csr_matrix(left) if issparse(left) else np.ascontiguousarray(left)

    def write(self, left: Matrix, first: int, tile: NDArray[np.float32], add: bool) -> None:
        """Write the scores of the items from `first` on into the tile, or add them to what is there."""
        if not issparse(left) and not issparse(self.right):
            self._multiply(left, first, tile, add)
            return
        if not add:
            tile[:] = 0
        if not issparse(left):
            tile += left @ self.right
        elif issparse(self.right):
            kernels.add_sparse_sparse(tile, *_parts(left), *_parts(self.right))
        else:
            kernels.add_sparse_dense(tile, *_parts(left), self.right, first)

    def _multiply(self, left: Matrix, first: int, tile: NDArray[np.float32], add: bool) -> None:
        """By scipy's BLAS, which counts in columns; its kernels know newer processors than those of numpy 1."""
        columns = self.right[:, first : first + tile.shape[1]]
        by_rows = self.right.flags.c_contiguous
        sgemm(1, columns.T if by_rows else columns, left.T, float(add), tile.T, trans_a=not by_rows, overwrite_c=True)


def _parts(matrix: csr_matrix) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return matrix.data, matrix.indices, matrix.indptr
