"""Random walks of two hops on the graph of users and items."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories
from avrec_spark.models.knn import row_weights
from avrec_spark.models.neighbourhoods import nearest_rows
from avrec_spark.recommend.topk import Matrix, ScoreSource


class Walk(Recommender):
    """Scores X S: where walks from a user's items lead, over other users to other items.

    S[i, j] = n_i^−start · Σ_u x_ui x_uj n_u^−user · n_j^−target, n the degrees; the `neighbours` strongest i of each
    item j are kept. start = user = 1, target = 0 are the probabilities of the walk; a larger user power hears less from
    users who have everything, and a larger target power recommends less of what is popular.
    Memory items × neighbours; time pairs of items that share a user.
    Source: RP3β of Paudel et al., Updatable, Accurate, Diverse, and Scalable Recommendations, TiiS 2017.
    """

    name = "walk"

    def __init__(
        self, *, start_power: float = 0.0, user_power: float = 1.0, target_power: float = 0.0, neighbours: int = 1000
    ) -> None:
        self.start_power = start_power
        self.user_power = user_power
        self.target_power = target_power
        self.neighbours = neighbours

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        taken = self._seen.astype(np.float32)
        items = csr_matrix((row_weights(taken, self.user_power / 2) @ taken).T)
        start = csr_matrix(row_weights(items, self.start_power) @ items)
        target = csr_matrix(row_weights(items, self.target_power) @ items)
        leading = nearest_rows(target, start, self.neighbours, np.arange(len(self.items)))
        return [ScoreSource(taken, csr_matrix(leading.T), "history")]

    def _left(self, histories: Histories) -> list[Matrix]:
        return [histories.taken().astype(np.float32)]
