"""Ranking metrics of one user each: the accuracy of a list.

All of them take binary relevance. A list is the k first recommendations of a user; rel(r) is 1 when the item at rank r
is among the user's held-out items, of which there are n. Figures are means over the users that have held-out items; a
user without recommendations counts 0. A k beyond the catalogue is allowed and changes no convention.

| metric | formula | convention |
|---|---|---|
| precision@k | Σ rel / k | divides by k, also for shorter lists |
| recall@k | Σ rel / n | |
| f1@k | 2 P R / (P + R) | of each user's own precision and recall, then the mean; 0 without a hit |
| hit-rate@k | 1 if Σ rel > 0 | |
| map@k | Σ rel(r) · precision@r / n | divides by all n held-out items |
| map-min@k | Σ rel(r) · precision@r / min(k, n) | divides by what a list of k can hold; never below map@k |
| mrr@k | 1 / rank of the first relevant item | 0 when there is none in the list |
| ndcg@k | Σ rel(r) / log2(r + 1) / ideal | ideal: min(k, n) relevant items at the top |

Sources: Järvelin and Kekäläinen 2002 (NDCG), Buckley and Voorhees 2000 (MAP over all relevant items), Kaggle's MAP@k
(over min(k, n)), Voorhees 1999 (MRR), van Rijsbergen 1979 (F1). The conventions are those of LF Recommenders' ranking
metrics, against whose published figures they are tested (yardstick lf-100k).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PER_USER = ("ndcg", "precision", "recall", "map", "mrr", "hit-rate", "f1", "map-min")

# Of bias, of unequal exposure, of error: the smaller, the better.
_LOWER_IS_BETTER = ("popularity", "popularity-lift", "miscalibration", "gini", "group-gini", "group-divergence")


def better(name: str) -> int:
    """1 where more is better, −1 where less is.

    >>> better("ndcg@10"), better("gini@10/new")
    (1, -1)
    """
    return -1 if parts(name)[0] in _LOWER_IS_BETTER else 1


def parts(name: str) -> tuple[str, int, str]:
    """Metric, list length (0 without one), and segment or group (empty without one) of a figure's name.

    >>> parts("ndcg@10/new"), parts("gini@20"), parts("rmse")
    (('ndcg', 10, 'new'), ('gini', 20, ''), ('rmse', 0, ''))
    """
    place, _, label = name.partition("/")
    metric, _, k = place.partition("@")
    return metric, int(k) if k.isdigit() else 0, label


def per_user(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> dict[str, NDArray[np.float64]]:
    """Each metric for each user. `hits` bool[users, ≥ k]: is the item at that rank relevant; `relevant` int64[users].

    One user, four relevant items, the first and third of three recommendations hit:

    >>> values = per_user(np.array([[True, False, True]]), np.array([4]), 3)
    >>> {name: round(float(value[0]), 4) for name, value in values.items()}
    {'ndcg': 0.7039, 'precision': 0.6667, 'recall': 0.5, 'map': 0.4167, 'mrr': 1.0, 'hit-rate': 1.0, 'f1': 0.5714,
     'map-min': 0.5556}

    NDCG is (1 + 1/log2(4)) / (1 + 1/log2(3) + 1/log2(4)), precision 2/3, recall 2/4, MAP (1/1 + 2/3) / 4, MRR 1/1,
    F1 2 · (2/3) · (2/4) / (2/3 + 2/4), MAP over min(3, 4) is (1/1 + 2/3) / 3.
    """
    top = hits[:, :k].astype(np.float64)
    ranks = np.arange(1, top.shape[1] + 1)
    reachable = np.minimum(relevant, k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[reachable]
    found = top.sum(axis=1)
    precisions = (top * np.cumsum(top, axis=1) / ranks).sum(axis=1)
    first = np.where(found > 0, 1.0 / (top.argmax(axis=1) + 1), 0.0) if top.shape[1] else np.zeros(len(top))
    return {
        "ndcg": top @ discount[: top.shape[1]] / ideal,
        "precision": found / k,
        "recall": found / relevant,
        "map": precisions / relevant,
        "mrr": first,
        "hit-rate": (found > 0).astype(np.float64),
        # 2PR / (P + R) with P = found / k and R = found / n.
        "f1": 2 * found / (k + relevant),
        "map-min": precisions / reachable,
    }
