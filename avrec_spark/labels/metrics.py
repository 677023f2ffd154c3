"""Metrics of multi-label classification; labels that nobody has decided (NaN) do not count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

# What is measured, in the order of its columns; ece-uncalibrated is that of the scores as they are.
METRICS = ("map", "f1-macro", "f1-micro", "ece-uncalibrated", "ece")


def mean_average_precision(known: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """The mean over the labels of AP = Σ_k (R_k - R_(k-1)) P_k, items in the order of falling scores, ties together.

    `known` is float32[n, L] of 1, 0 and NaN, `scores` float32[n, L]. A label that no item has, or that every one has,
    cannot be ranked and does not count; NaN where there is no other. The convention is scikit-learn's.

    >>> known = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    >>> mean_average_precision(known, np.array([[3, 1], [2, 1], [1, 1]], np.float32))  # (1/1 + 2/3) / 2
    0.833...
    """
    found = []
    for truth, ranked in zip(known.T, scores.T, strict=True):
        said = ~np.isnan(truth)
        if len(np.unique(truth[said])) == 2:
            found.append(average_precision_score(truth[said], ranked[said]))
    return float(np.mean(found)) if found else float("nan")


def f1(known: NDArray[np.float32], predicted: NDArray[np.bool_]) -> dict[str, float]:
    """2 TP / (2 TP + FP + FN): `macro`, the mean over the labels that an item has, and `micro`, of all pairs together.

    >>> known = np.array([[1, 0], [1, 1], [0, np.nan]], np.float32)
    >>> f1(known, np.array([[True, True], [False, True], [False, True]]))  # labels: 2/3 and 2/3; 2·2 / (2·2 + 1 + 1)
    {'macro': 0.666..., 'micro': 0.666...}
    """
    true, false = known == 1, known == 0
    hits = 2 * (true & predicted).sum(axis=0)
    errors = (false & predicted).sum(axis=0) + (true & ~predicted).sum(axis=0)
    has = true.any(axis=0)
    if not has.any():
        return {"macro": float("nan"), "micro": float("nan")}
    macro = (hits[has] / (hits[has] + errors[has])).mean()
    return {"macro": float(macro), "micro": float(hits.sum() / (hits.sum() + errors.sum()))}
