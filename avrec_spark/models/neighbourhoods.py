"""Sparse matrices with the few largest entries a row, made in blocks: what kNN models are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, vstack

# Rows of a product that are there at one time; a dense row of a million columns is 4 MB.
_BLOCK = 512


def unit_rows(matrix: csr_matrix, shrinkage: float = 0.0) -> csr_matrix:
    """Rows divided by the square root of their squared length + shrinkage; empty rows stay empty."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), np.float64).ravel() + shrinkage)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return csr_matrix(diags(inverse.astype(np.float32)) @ matrix)


def strongest(rows: csr_matrix, n: int) -> csr_matrix:
    """The n largest entries of each row, all of them positive; equal ones by column.

    >>> strongest(csr_matrix(np.array([[0.0, 3.0, 1.0, 2.0]])), 2).toarray().tolist()
    [[0.0, 3.0, 0.0, 2.0]]
    """
    rows = csr_matrix(rows)
    rows.sort_indices()
    number = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, number))
    place = np.arange(len(order)) - rows.indptr[:-1][number]
    kept = order[(place < n) & (rows.data[order] > 0)]
    return csr_matrix((rows.data[kept], (number[kept], rows.indices[kept])), shape=rows.shape)


def nearest_rows(left: csr_matrix, right: csr_matrix, n: int, itself: NDArray[np.int64] | None = None) -> csr_matrix:
    """The n largest entries of each row of left @ rightᵀ, float32[len(left), len(right)].

    `itself` int64[len(left)] is a row's own column, which is left out; -1 where it has none. The product is made in
    blocks: memory is that of the result and of 512 rows of it.
    """
    columns = csr_matrix(right.T)
    own = np.full(left.shape[0], -1, np.int64) if itself is None else itself
    parts = [strongest(_without(left[rows] @ columns, own[rows]), n) for rows in _blocks(left.shape[0])]
    return csr_matrix(vstack(parts, format="csr")) if parts else csr_matrix((0, right.shape[0]), dtype=np.float32)


def without_diagonal(matrix: csr_matrix) -> csr_matrix:
    """A square matrix without its diagonal."""
    return _without(matrix, np.arange(matrix.shape[0]))


def _without(matrix: csr_matrix, columns: NDArray[np.int64]) -> csr_matrix:
    entries = matrix.tocoo()
    kept = entries.col != columns[entries.row]
    return csr_matrix((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=matrix.shape)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n, _BLOCK))
