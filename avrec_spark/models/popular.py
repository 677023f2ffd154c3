"""Popularity: the reference that every other model has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender, choice
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource

_SECONDS_A_DAY = 86_400.0
BY = ("overall", "recent", "segment")


class Popular(Recommender):
    """An item's score is the number of users who have it.

    | by | counts |
    |---|---|
    | overall | every user once |
    | recent | 2^(−age / half-life) for a user's latest event on the item, age counted from the latest event of all |
    | segment | users who are as active as oneself: `segments` groups of equal size by the number of items they have |

    Segments break their ties by the overall count. Memory items × segments; time events.
    """

    name = "popular"

    def __init__(self, *, by: str = "overall", half_life_days: float = 30.0, segments: int = 3) -> None:
        self.by = choice("The parameter by of the model popular", by, BY)
        self.half_life_days = half_life_days
        self.segments = segments

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        if self.by == "segment":
            return self._by_segment()
        counts = self._popularity if self.by == "overall" else self._recent()
        return [ScoreSource(self._everybody(self._histories), counts[None, :], "constant")]

    def _recent(self) -> NDArray[np.float32]:
        # The latest event of a pair is the last of its rows in the order of time.
        events = self._histories
        pair = events.user * np.int64(events.n_items) + events.item
        order = np.lexsort((np.arange(len(pair)), pair))
        last = order[np.append(pair[order][1:] != pair[order][:-1], True)]
        last = last[events.weight[last] > 0]
        age_days = (self._now - events.timestamp[last]) / _SECONDS_A_DAY
        worth = np.exp2(-age_days / self.half_life_days)
        return np.bincount(events.item[last], worth, events.n_items).astype(np.float32)

    def _by_segment(self) -> list[ScoreSource]:
        taken = self._histories.taken()
        size = _activity(taken)
        # Users without items are in no segment.
        quantiles = np.arange(1, self.segments) / self.segments
        self._bounds = np.quantile(size[size > 0], quantiles).astype(np.float64)
        members = self._segment(taken)
        counts = np.asarray((members.T @ taken.astype(np.float32)).toarray(), np.float32)
        counts += self._popularity / (len(self.users) + 1)
        return [ScoreSource(members, counts)]

    def _segment(self, taken: csr_matrix) -> csr_matrix:
        """float32[n_users, segments] with a 1 a row."""
        number = np.searchsorted(self._bounds, _activity(taken))
        ones = np.ones(len(number), np.float32)
        return csr_matrix((ones, (np.arange(len(number)), number)), shape=(len(number), self.segments))

    def _everybody(self, histories: Histories) -> NDArray[np.float32]:
        return np.ones((histories.n_users, 1), np.float32)

    def _left(self, histories: Histories) -> list[Matrix]:
        return [self._segment(histories.taken()) if self.by == "segment" else self._everybody(histories)]

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> None:
        """What is popular is so without a user's past."""

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"bounds": self._bounds} if self.by == "segment" else {}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        if self.by == "segment":
            self._bounds = extra["bounds"]


def _activity(taken: csr_matrix) -> NDArray[np.int64]:
    """int64[n_users]: how many items each user has."""
    return np.asarray(taken.sum(axis=1), np.int64).ravel()
