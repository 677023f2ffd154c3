"""The weights of a blend: what the members say of held-out users, and the search for the weights that rank best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.evaluation import metrics
from avrec_spark.recommend.topk import ScoreSource, top_k

# Of each member's list: what none of them has among its first hundred is not in the blend's first ten.
_DEPTH = 100
# NDCG of so many users has a standard error of about .004.
_MAX_USERS = 5_000
_BLOCK = 256
# Fewer items, and holding some out would leave nothing to learn from.
_MIN_ITEMS = 3
# What a step multiplies one weight by; 0 leaves the member out.
_FACTORS = (0.0, 0.5, 0.8, 1.25, 2.0)
_MAX_SWEEPS = 5


@dataclass(frozen=True)
class Ballots:
    """What M members say of C candidates for each of n users: float32 `scores`[n, M, C] in units of their deviation;
    bool `real`[n, C] marks candidates that count (others repeat one, or were seen), bool `relevant`[n, C] the held-out
    ones; int64 `held_out`[n] is how many held-out items a user has.
    """

    scores: NDArray[np.float32]
    real: NDArray[np.bool_]
    relevant: NDArray[np.bool_]
    held_out: NDArray[np.int64]

    def ndcg(self, weights: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """float64[n]: each user's NDCG@k of the blend with these weights float64[M]."""
        if len(self.scores) == 0:
            return np.empty(0)
        total = np.tensordot(self.scores, weights.astype(np.float32), (1, 0))
        total = np.where(self.real, total, -np.inf)
        k = min(k, total.shape[1])
        best = np.argpartition(-total, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(total, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        hits = np.take_along_axis(self.relevant & self.real, best, axis=1)
        return metrics.per_user(hits, self.held_out, k)["ndcg"]


def hold_out(training_set: TrainingSet, latest: bool, share: float, seed: int) -> TrainingSet:
    """The training set without a share of each user's items, the latest or random ones; these are its validation part.

    At least one item of every user with 3 or more is held out, none of a user with fewer.
    """
    part = training_set
    rows = pd.DataFrame({c.USER_INDEX: part.user_index, c.ITEM_INDEX: part.item_index, c.TIMESTAMP: part.timestamp})
    pairs = rows.groupby([c.USER_INDEX, c.ITEM_INDEX], as_index=False)[c.TIMESTAMP].max()
    draw = np.random.default_rng(seed).random(len(pairs))
    order = np.lexsort((draw, -pairs[c.TIMESTAMP] if latest else draw, pairs[c.USER_INDEX]))
    place = pairs.iloc[order].groupby(c.USER_INDEX).cumcount().sort_index().to_numpy()
    count = pairs.groupby(c.USER_INDEX)[c.ITEM_INDEX].transform("size").to_numpy()
    out = pairs[(count >= _MIN_ITEMS) & (place < np.maximum(1, np.floor(count * share)))]
    number = part.user_index * len(part.items) + part.item_index
    kept = ~np.isin(number, out[c.USER_INDEX].to_numpy() * len(part.items) + out[c.ITEM_INDEX].to_numpy())
    return replace(
        part,
        user_index=part.user_index[kept],
        item_index=part.item_index[kept],
        weight=part.weight[kept],
        timestamp=part.timestamp[kept],
        validation=out[[c.USER_INDEX, c.ITEM_INDEX]].reset_index(drop=True),
        path=None,
    )


def ballots(members: list[list[ScoreSource]], seen: csr_matrix, validation: pd.DataFrame, seed: int) -> Ballots:
    """The members' scores of the candidates of the users in `validation` who have a history.

    Candidates are the 100 best unseen items of each member.
    """
    held_out = _pairs(validation, seen.shape)
    users = np.flatnonzero((np.diff(held_out.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if len(users) > _MAX_USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, _MAX_USERS, replace=False))
    parts = [_ballots_of(members, seen, held_out, users[n : n + _BLOCK]) for n in range(0, len(users), _BLOCK)]
    width = min(_DEPTH, seen.shape[1]) * len(members)
    nothing = np.zeros((0, len(members), width), np.float32), *[np.zeros((0, width), np.bool_)] * 2
    scores, real, relevant = (np.concatenate(arrays) for arrays in zip(nothing, *parts, strict=True))
    return Ballots(scores, real, relevant, np.diff(held_out.indptr)[users].astype(np.int64))


def _ballots_of(
    members: list[list[ScoreSource]], seen: csr_matrix, held_out: csr_matrix, users: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    depth = min(_DEPTH, seen.shape[1])
    lists = [top_k(sources, users, depth, seen[users])[0] for sources in members]
    items = np.sort(np.concatenate(lists, axis=1), axis=1)
    real = (items >= 0) & np.concatenate([np.ones((len(users), 1), np.bool_), items[:, 1:] != items[:, :-1]], axis=1)
    place = np.maximum(items, 0)
    scores = np.empty((len(users), len(members), items.shape[1]), np.float32)
    for n, sources in enumerate(members):
        everything = total(sources, users)
        scores[:, n] = np.take_along_axis(everything, place, axis=1) / _divisor(everything)[:, None]
    relevant = np.take_along_axis(held_out[users].toarray(), place, axis=1)
    return scores, real, relevant


def search(votes: Sequence[Ballots], k: int) -> tuple[NDArray[np.float64], list[float]]:
    """(weights float64[M] that sum to 1, mean NDCG@k after each step): coordinate ascent from equal weights.

    A step tries multiples of one weight, 0, and the mean of all. It is taken where it gains more than the standard
    error of the gain over the users: what chance can explain moves no weight. Where nothing was held out the weights
    stay equal.
    """
    n_members = votes[0].scores.shape[1]
    weights = np.full(n_members, 1 / n_members)

    def ndcg(trial: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([part.ndcg(trial, k) for part in votes])

    now = ndcg(weights)
    if len(now) == 0:
        return weights, []
    path = [float(now.mean())]
    for _ in range(_MAX_SWEEPS):
        steps = len(path)
        for member in range(n_members):
            trials = [_with(weights, member, value) for value in _values(weights, member)]
            figures = [ndcg(trial) for trial in trials]
            best = int(np.argmax([figure.mean() for figure in figures]))
            gain = figures[best] - now
            if gain.mean() > gain.std() / np.sqrt(len(gain)):
                weights, now = trials[best], figures[best]
                path.append(float(now.mean()))
        if len(path) == steps:
            break
    return weights, path


def _values(weights: NDArray[np.float64], member: int) -> list[float]:
    values = {*(float(weights[member]) * factor for factor in _FACTORS), float(weights.mean())}
    # A blend of nothing ranks nothing.
    return sorted(value for value in values if weights.sum() - weights[member] + value > 0)


def _with(weights: NDArray[np.float64], member: int, value: float) -> NDArray[np.float64]:
    changed = weights.copy()
    changed[member] = value
    return np.asarray(changed / changed.sum(), np.float64)


def deviations(sources: list[ScoreSource], n_users: int) -> NDArray[np.float32]:
    """float32[n_users]: the deviation of each user's scores over all items; infinite where all are equal."""
    result = np.empty(n_users, np.float32)
    for start in range(0, n_users, _BLOCK):
        users = np.arange(start, min(start + _BLOCK, n_users))
        result[users] = _divisor(total(sources, users))
    return result


def total(sources: list[ScoreSource], users: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[users, n_items]: the sum of the sources."""
    scores = sources[0].scores(users)
    for source in sources[1:]:
        scores = scores + source.scores(users)
    return scores


def _divisor(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    deviation = scores.std(axis=1, dtype=np.float64)
    return np.where(deviation > 1e-12, deviation, np.inf).astype(np.float32)


def _pairs(frame: pd.DataFrame, shape: tuple[int, int]) -> csr_matrix:
    places = frame[c.USER_INDEX].to_numpy(), frame[c.ITEM_INDEX].to_numpy()
    return csr_matrix((np.ones(len(frame), np.bool_), places), shape=shape)
