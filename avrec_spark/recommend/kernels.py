"""The loops of the top-K engine, compiled by numba: each works on one tile of scores and lets go of the GIL.

The first call in a process compiles a loop, about a second each, or loads it in some milliseconds where an earlier
process could keep it: beside the package, else in the user's cache (numba's NUMBA_CACHE_DIR says where).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_CHUNK = 64
_LAST_ITEM = 2**31 - 1
_EMPTY = np.iinfo(np.int64).min


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The loop compiled on its first call; kept on disk where that can be."""
    try:
        return njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # numba found no folder that it may write
        return njit(nogil=True)(loop)


# -- selection -------------------------------------------------------------------------------------------------------
# A score and its item make one integer, the key: in the upper half the bits of the score, turned so that they order as
# the score does, in the lower half the item counted from the last. So the larger key is the better, and of equal scores
# the one with the smaller item.


class Selection:
    """The k best of some users while tiles of their scores come by, items in rising order.

    `seen` [all users, n_items], indices sorted, marks the items to leave out; `users` are the rows that belong here.
    Equal scores go to the smaller item; NaN and -inf are never taken.
    """

    def __init__(self, k: int, n_items: int, seen: csr_matrix, users: range) -> None:
        self.k, self.n_users = k, len(users)
        self._keys = np.empty((self.n_users, min(n_items, max(256, 2 * k))), np.int64)
        self._counts = np.zeros(self.n_users, np.int64)
        self._thresholds = np.full(self.n_users, -np.inf, np.float32)
        bounds = seen.indptr[users.start : users.stop + 1]
        self._seen, self._at, self._end = seen.indices, bounds[:-1].copy(), bounds[1:]

    def take(self, tile: NDArray[np.float32], items: NDArray[np.int32]) -> None:
        """Look through the scores [users, items] of the next items."""
        seen = self._seen, self._at, self._end
        _select(tile, items, *seen, self.k, self._keys, self._counts, self._thresholds)

    def best(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Items int32[users, k] and scores float32[users, k], best first; -1 and 0 where there are no more."""
        self._keys[np.arange(self._keys.shape[1]) >= self._counts[:, None]] = _EMPTY
        self._keys.sort(axis=1)
        keys = self._keys[:, : -self.k - 1 : -1]
        order = (keys >> 32).astype(np.int32)
        scores = np.where(order < 0, order ^ 0x7FFFFFFF, order).astype(np.int32).view(np.float32)
        items = _LAST_ITEM - (keys & 0xFFFFFFFF)
        return np.where(keys == _EMPTY, -1, items).astype(np.int32), np.where(keys == _EMPTY, np.float32(0), scores)


@compiled
def _largest_to_the_front(keys, k):  # type: ignore[no-untyped-def]
    """Hoare's quickselect: the k largest of the distinct keys come to the front, the least of them at place k - 1."""
    low, high = 0, len(keys) - 1
    while low < high:
        first, middle, last = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        left, right = low, high
        while left <= right:
            while keys[left] > pivot:
                left += 1
            while keys[right] < pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if k - 1 <= right:
            high = right
        elif k - 1 >= left:
            low = left
        else:
            return


@compiled
def _select(tile, items, seen, at, end, k, keys, counts, thresholds):  # type: ignore[no-untyped-def]
    """Collect from a tile float32[users, columns] what may belong to the k best of each user.

    `keys` int64[users, more than k unless it holds all items] collects, `counts` says how many are there. When a row is
    full, the k best of it stay and the least of those sets the user's threshold: a later item must exceed it, because
    equal scores go to the earlier. Seen items are met in the same order: `at` is the user's place among them.
    """
    bits, threshold_bits = tile.view(np.int32), thresholds.view(np.int32)
    for user in range(tile.shape[0]):
        threshold, count = thresholds[user], counts[user]
        for chunk in range((tile.shape[1] + _CHUNK - 1) // _CHUNK):
            size = min(_CHUNK, tile.shape[1] - chunk * _CHUNK)
            left = np.int32(size)
            if size == _CHUNK:
                # Most chunks hold nothing: a loop of constant length that only counts is compiled to vector code.
                left = np.int32(0)
                for inner in range(_CHUNK):
                    left += np.int32(tile[user, chunk * _CHUNK + inner] > threshold)
            for inner in range(size):
                if left == 0:
                    break
                column = chunk * _CHUNK + inner
                score = tile[user, column]
                if not score > threshold:
                    continue
                left -= 1
                item = items[column]
                while at[user] < end[user] and seen[at[user]] < item:
                    at[user] += 1
                if at[user] < end[user] and seen[at[user]] == item:
                    continue
                # 0 and -0 are equal, but not their bits.
                order = np.int64(bits[user, column]) if score != 0 else np.int64(0)
                if order < 0:
                    order ^= 0x7FFFFFFF
                keys[user, count] = (order << 32) | (_LAST_ITEM - item)
                count += 1
                if count == keys.shape[1]:
                    _largest_to_the_front(keys[user], k)
                    count = k
                    order = keys[user, k - 1] >> 32
                    threshold_bits[user] = order if order >= 0 else order ^ 0x7FFFFFFF
                    threshold = thresholds[user]
        counts[user] = count


# -- products with a sparse side -------------------------------------------------------------------------------------
# Sparse matrices come as data, indices, indptr. Beside scipy's product these write into a tile and reach single columns
# of a dense matrix without a copy.


@compiled
def add_sparse_dense(tile, data, indices, indptr, right, first):  # type: ignore[no-untyped-def]
    """tile += sparse [users, d] @ right [d, items], for the tile's columns of right, which begin at `first`."""
    for user in range(tile.shape[0]):
        row = tile[user]
        for position in range(indptr[user], indptr[user + 1]):
            value, weights = data[position], right[indices[position], first : first + tile.shape[1]]
            for column in range(tile.shape[1]):
                row[column] += value * weights[column]


@compiled
def add_sparse_sparse(tile, data, indices, indptr, right_data, right_indices, right_indptr):  # type: ignore[no-untyped-def]
    """tile += sparse [users, d] @ sparse [d, items], all columns."""
    for user in range(tile.shape[0]):
        for position in range(indptr[user], indptr[user + 1]):
            value, middle = data[position], indices[position]
            for entry in range(right_indptr[middle], right_indptr[middle + 1]):
                tile[user, right_indices[entry]] += value * right_data[entry]
