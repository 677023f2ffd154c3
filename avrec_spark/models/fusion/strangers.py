"""What a few events say of a stranger beside what is popular, as the known users' own first events tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark.evaluation import metrics
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import ScoreSource, top_k

# First events of known users that are taken for a stranger's, and how many scores are looked at for each number.
_LENGTHS, _SCORES, _K = (1, 3, 10, 30), 1 << 22, 10
# How many events popularity can be worth.
WORTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


def log_popularity(users: NDArray[np.float32]) -> NDArray[np.float64]:
    """The log of how popular items are, up to a constant, by how many users have touched each: float32[n_items].

    log(users + k), from a gamma prior of shape k = mean² / (variance − mean) of the touched items' counts: where they
    differ by no more than chance, all are alike. Nobody has had the chance to touch a new item: it counts as an average
    one.

    >>> log_popularity(np.float32([0, 9, 99])).round(1).tolist()
    [3.5, 2.3, 4.6]
    """
    touched = users > 0
    mean, variance = float(users[touched].mean()), float(users[touched].var())
    logs = np.log(users.astype(np.float64) + mean**2 / max(variance - mean, 1e-6))
    logs[~touched] = logs[touched].mean()
    return logs


def worth_of_popularity(histories: Histories, sources: Callable[[Histories, float], Sequence[ScoreSource]]) -> float:
    """How many events popularity is worth to strangers: with which of `WORTHS` the first 1, 3, 10 and 30 events of
    known users tell best what they did later, by the mean NDCG@10.

    `sources` gives the scores for histories of strangers, if popularity is worth so much.
    """
    parts = [part for n in _LENGTHS if (part := first_events(histories, n))[0].n_users]

    def quality(worth: float) -> float:
        return sum(_ndcg(sources(told, worth), told.taken(), later) for told, later in parts)

    # Where nothing tells them apart, the popular list is what is known to work.
    return max(reversed(WORTHS), key=quality)


def first_events(histories: Histories, n: int) -> tuple[Histories, csr_matrix]:
    """The first n events of users who have more, as histories of strangers, and bool[users, n_items] of what came
    later; of some users only where items are many."""
    users = np.flatnonzero(np.diff(histories.starts) > n)[: max(100, _SCORES // histories.n_items)]
    them = histories.of_users(users, 0)
    first = np.arange(len(them.user)) - them.starts[them.user] < n
    user, item = them.user[first], them.item[first]
    told = Histories(user, item, them.weight[first], them.timestamp[first], them.known, them.n_items)
    ones = np.ones((~first).sum(), np.bool_)
    later = csr_matrix((ones, (them.user[~first], them.item[~first])), shape=(len(users), them.n_items))
    return told, csr_matrix(later > told.taken())


def _ndcg(sources: Sequence[ScoreSource], seen: csr_matrix, later: csr_matrix) -> float:
    """The mean over users of whom anything came later."""
    n_later = np.diff(later.indptr)
    users = np.flatnonzero(n_later)
    if len(users) == 0:
        return 0.0
    items, _ = top_k(list(sources), users, _K, seen[users])
    row, column = later.nonzero()
    n_items = later.shape[1]
    hits = np.isin(users[:, None] * n_items + items, row.astype(np.int64) * n_items + column) & (items >= 0)
    return float(metrics.per_user(hits, n_later[users], _K)["ndcg"].mean())
