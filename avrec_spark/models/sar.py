"""SAR, the Smart Adaptive Recommendations of LF Recommenders (formerly Microsoft Recommenders)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource

_SECONDS_A_DAY = 86_400.0


class SAR(Recommender):
    """Scores A S: affinity A of users to items, similarity S of items.

    A[u, i] = Σ weight · 2^(−age / half-life) over the user's events on the item, age counted from the latest event of
    all. S is the Jaccard index of the items' users: C[i, j] / (C[i, i] + C[j, j] − C[i, j]), C the co-occurrence.
    Memory and time: pairs of items that share a user. Folds in; an event after all of the fit's counts more than 1.
    Source: the SAR notebook of LF Recommenders.
    """

    name = "sar"

    def __init__(self, *, half_life_days: float = 30.0) -> None:
        self.half_life_days = half_life_days

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        taken = self._seen.astype(np.float32)
        together = (taken.T @ taken).tocoo()
        count = self._popularity
        union = count[together.row] + count[together.col] - together.data
        similarity = csr_matrix((together.data / union, (together.row, together.col)), shape=together.shape)
        return [ScoreSource(self._left(self._histories)[0], similarity.astype(np.float32), "history")]

    def _left(self, histories: Histories) -> list[Matrix]:
        age_days = (self._now - histories.timestamp) / _SECONDS_A_DAY
        affinity = histories.weight * np.exp2(-age_days / self.half_life_days)
        return [histories.matrix(affinity.astype(np.float32))]
