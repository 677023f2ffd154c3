"""Half-steps of alternating least squares in numpy: users given items, or items given users."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

# Rows whose systems are solved together; rows of like length, so that little is padded.
_AT_ONCE = 64


def half_step(
    ratings: csr_matrix, factors: NDArray[Any], regularisation: float, alpha: float | None
) -> NDArray[np.float32]:
    """float32[m, d]: the best factors of the rows of `ratings` [m, n], given those of the columns, float[n, d].

    Implicit, with confidence 1 + α r and preference 1 where r > 0 (Hu, Koren and Volinsky 2008):
    u = (VᵀV + Σ_i α r_i v_i v_iᵀ + λ n I)⁻¹ Σ_i (1 + α r_i) v_i.
    Explicit, where alpha is None (Zhou et al. 2008): u = (Σ_i v_i v_iᵀ + λ n I)⁻¹ Σ_i r_i v_i.
    Sums go over the n entries above 0 of the row; a row without any stays zero. Both are what
    Spark's MLlib does. Memory beside the result: 64 × the longest row × d floats.
    """
    ratings = csr_matrix(ratings, copy=True)
    ratings.data[ratings.data < 0] = 0
    ratings.eliminate_zeros()
    factors = np.asarray(factors, np.float64)
    d = factors.shape[1]
    everything = factors.T @ factors if alpha is not None else np.zeros((d, d))
    result = np.zeros((ratings.shape[0], d), np.float32)
    length = np.diff(ratings.indptr)
    order = np.argsort(length, kind="stable")
    order = order[length[order] > 0]
    for rows in np.split(order, range(_AT_ONCE, len(order), _AT_ONCE)):
        width = int(length[rows].max(initial=0))
        place = ratings.indptr[rows][:, None] + np.minimum(np.arange(width), length[rows][:, None] - 1)
        real = np.arange(width) < length[rows][:, None]
        r = np.where(real, ratings.data[place], 0.0)
        gathered = factors[ratings.indices[place]]
        inner, outer = (alpha * r, real + alpha * r) if alpha is not None else (real.astype(np.float64), r)
        systems = everything + (gathered * inner[:, :, None]).transpose(0, 2, 1) @ gathered
        systems[:, np.arange(d), np.arange(d)] += regularisation * length[rows][:, None]
        right_sides = (gathered * outer[:, :, None]).sum(axis=1)
        result[rows] = np.linalg.solve(systems, right_sides[:, :, None])[:, :, 0]
    return result


def alternate(
    ratings: csr_matrix, rank: int, iterations: int, regularisation: float, alpha: float | None, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(user factors float32[m, rank], item factors float32[n, rank]) after so many rounds of items, then users."""
    random = np.random.default_rng(seed)
    users = random.normal(size=(ratings.shape[0], rank)).astype(np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    across = csr_matrix(ratings.T)
    items = np.zeros((ratings.shape[1], rank), np.float32)
    for _ in range(iterations):
        items = half_step(across, users, regularisation, alpha)
        users = half_step(ratings, items, regularisation, alpha)
    return users, items
