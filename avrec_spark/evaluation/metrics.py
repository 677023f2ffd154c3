"""Ranking metrics: one kernel that both executors call.

All of them take binary relevance. A list is the k first recommendations of a user; rel(r) is 1 when the item at rank r
is among the user's held-out items, of which there are n. Figures are means over the users that have held-out items; a
user without recommendations counts 0.

| metric | formula | convention |
|---|---|---|
| precision@k | Σ rel / k | divides by k, also for shorter lists |
| recall@k | Σ rel / n | |
| hit-rate@k | 1 if Σ rel > 0 | |
| map@k | Σ rel(r) · precision@r / n | divides by all n held-out items, not by min(k, n) |
| mrr@k | 1 / rank of the first relevant item | 0 when there is none in the list |
| ndcg@k | Σ rel(r) / log2(r + 1) / ideal | ideal: min(k, n) relevant items at the top |
| coverage@k | distinct items in all lists / items | of the whole catalogue that the model ranks |

Sources: Järvelin and Kekäläinen 2002 (NDCG), Buckley and Voorhees 2000 (MAP), Voorhees 1999 (MRR); the conventions are
those of LF Recommenders' ranking metrics, against whose published figures they are tested (yardstick lf-100k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# The bootstrap's counts are samples × users; this bounds them.
_USERS_AT_ONCE = 16_384

PER_USER = ("ndcg", "precision", "recall", "map", "mrr", "hit-rate")


def per_user(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> dict[str, NDArray[np.float64]]:
    """Each metric for each user. `hits` bool[users, ≥ k]: is the item at that rank relevant; `relevant` int64[users].

    One user, four relevant items, the first and third of three recommendations hit:

    >>> values = per_user(np.array([[True, False, True]]), np.array([4]), 3)
    >>> {name: round(float(value[0]), 4) for name, value in values.items()}
    {'ndcg': 0.7039, 'precision': 0.6667, 'recall': 0.5, 'map': 0.4167, 'mrr': 1.0, 'hit-rate': 1.0}

    NDCG is (1 + 1/log2(4)) / (1 + 1/log2(3) + 1/log2(4)), precision 2/3, recall 2/4, MAP (1/1 + 2/3) / 4, MRR 1/1.
    """
    top = hits[:, :k].astype(np.float64)
    ranks = np.arange(1, top.shape[1] + 1)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(relevant, k)]
    found = top.sum(axis=1)
    precisions = np.cumsum(top, axis=1) / ranks
    first = np.where(found > 0, 1.0 / (top.argmax(axis=1) + 1), 0.0) if top.shape[1] else np.zeros(len(top))
    return {
        "ndcg": top @ discount[: top.shape[1]] / ideal,
        "precision": found / k,
        "recall": found / relevant,
        "map": (top * precisions).sum(axis=1) / relevant,
        "mrr": first,
        "hit-rate": (found > 0).astype(np.float64),
    }


@dataclass
class Sums:
    """What a share of the users adds to the figures; shares are added up.

    `total` is float64[metrics], `resampled` float64[samples, metrics], `resampled_users` float64[samples].
    """

    users: int
    total: NDArray[np.float64]
    resampled: NDArray[np.float64]
    resampled_users: NDArray[np.float64]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.users + other.users,
            self.total + other.total,
            self.resampled + other.resampled,
            self.resampled_users + other.resampled_users,
        )


def names(ks: tuple[int, ...]) -> list[str]:
    """The metrics of `summarise`, in order.

    >>> names((5,))
    ['ndcg@5', 'precision@5', 'recall@5', 'map@5', 'mrr@5', 'hit-rate@5']
    """
    return [f"{metric}@{k}" for k in ks for metric in PER_USER]


def summarise(
    users: NDArray[Any], hits: NDArray[np.bool_], relevant: NDArray[np.int64], ks: tuple[int, ...], samples: int
) -> Sums:
    """Sums of all metrics over some users, and over `samples` bootstrap samples of them.

    The bootstrap is Poisson's (Chamandy et al. 2012): each user is in each sample Poisson(1) times. The number is drawn
    from a hash of the user's id, so that the samples are the same however the users are spread over tasks.
    """
    figures = [per_user(hits, relevant, k) for k in ks]
    values = np.stack([figure[metric] for figure in figures for metric in PER_USER], axis=1)
    resampled, resampled_users = np.zeros((samples, values.shape[1])), np.zeros(samples)
    for start in range(0, len(users), _USERS_AT_ONCE):
        block = slice(start, start + _USERS_AT_ONCE)
        times = _poisson(users[block], samples)
        resampled += times @ values[block]
        resampled_users += times.sum(axis=1)
    return Sums(len(users), values.sum(axis=0), resampled, resampled_users)


def finish(sums: Sums, ks: tuple[int, ...], coverage: dict[int, float]) -> dict[str, dict[str, float]]:
    """{"ndcg@10": {"mean": …, "low": …, "high": …}, …}: means with 95 % bootstrap intervals.

    Coverage has no interval (it is no mean over users); without samples low and high equal the mean.
    """
    means = sums.total / max(sums.users, 1)
    if len(sums.resampled):
        resampled = sums.resampled / np.maximum(sums.resampled_users, 1)[:, None]
        low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    else:
        low = high = means
    result = {
        name: {"mean": float(means[n]), "low": float(low[n]), "high": float(high[n])}
        for n, name in enumerate(names(ks))
    }
    for k, share in coverage.items():
        result[f"coverage@{k}"] = {"mean": share, "low": share, "high": share}
    return result


def hit_matrix(
    lists: pd.DataFrame, truth: pd.DataFrame, user: str, item: str, rank: str, width: int
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    """(users, hits bool[users, width], relevant int64[users]) of the users in `truth`, from long frames."""
    truth = truth[[user, item]].drop_duplicates()
    counts = truth.groupby(user, sort=True).size()
    users = counts.index.to_numpy()
    matched = lists[lists[rank] <= width].merge(truth, on=[user, item])
    hits = np.zeros((len(users), width), np.bool_)
    hits[counts.index.get_indexer(pd.Index(matched[user])), matched[rank].to_numpy(np.int64) - 1] = True
    return users, hits, np.asarray(counts, np.int64)


def _poisson(users: NDArray[Any], samples: int) -> NDArray[np.float64]:
    """float64[samples, users] of Poisson(1) counts from a hash of (user, sample)."""
    if samples == 0:
        return np.zeros((0, len(users)))
    keys = pd.util.hash_array(np.asarray(users)).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = keys[None, :] + np.arange(1, samples + 1, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
        # The finaliser of splitmix64 (Steele, Lea and Flood 2014) makes neighbouring keys independent.
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    uniform = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    cumulative = np.cumsum(np.exp(-1) / np.cumprod(np.concatenate([[1.0], np.arange(1.0, 12.0)])))
    return np.asarray(np.searchsorted(cumulative, uniform), np.float64)
