"""Vectors of many dimensions on a plane: what is near by on it is alike, and its distances say no more than that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

# Fewer points have too few neighbours for t-SNE: they lie as on their first two principal components.
_FEW = 10
_PERPLEXITY, _STEPS, _SEED = 30.0, 500, 42


def on_a_plane(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """float64[n, 2], each axis from 0 to 1, of vectors [n, d]: t-SNE of their directions, begun at their PCA.

    Neighbours are by the cosine of centred vectors, as in gold.item_neighbours. The same vectors give the same places.
    Source: van der Maaten and Hinton 2008; begun at the PCA, which keeps the large shape: Kobak and Berens 2019.

    >>> places = on_a_plane(np.array([[0.0, 1], [0, 2], [9, 9]]))
    >>> places.shape, bool(abs(places[0] - places[1]).sum() < abs(places[0] - places[2]).sum())
    ((3, 2), True)
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    start = _principal(unit)
    if len(vectors) < _FEW:
        return _stretched(start)
    # As small as scikit-learn makes its own start.
    start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start, max_iter=_STEPS, random_state=_SEED)
    # Steps this small are over before a second thread has begun; on a busy machine it would be waited for at each.
    with threadpool_limits(1):
        return _stretched(tsne.fit_transform(unit))


def _principal(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, 2]: the first two principal components; zero where there are none."""
    left, strength, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    found = np.zeros((len(vectors), 2))
    found[:, : min(2, len(strength))] = (left * strength)[:, :2]
    return found


def _stretched(points: NDArray[Any]) -> NDArray[np.float64]:
    low, width = points.min(axis=0), np.ptp(points, axis=0)
    # What does not differ beyond rounding lies in the middle.
    flat = width <= 1e-9
    return np.where(flat, 0.5, (points - low) / np.where(flat, 1.0, width))
