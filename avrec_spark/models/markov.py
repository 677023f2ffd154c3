"""What follows what: a Markov model of items, for the next item."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories, following
from avrec_spark.models.neighbourhoods import strongest, without_diagonal
from avrec_spark.recommend.topk import Matrix, ScoreSource


class Markov(Recommender):
    """Scores h S: what follows the items of a history, the latest counting most.

    C[i, j] = Σ decay^(lag−1) over events on j that come `lag` ≤ window events after one on i; symmetric models add Cᵀ.
    S[i, j] = C[i, j] / (√(n_i n_j) + shrinkage), n an item's users; the `neighbours` strongest of each item j are kept.
    h[i] = Σ e^(−k / memory) over the events on i, k events before the latest (memory 0: all count 1).

    Needs times; events of one user at one time are in an order that says nothing. Memory items × neighbours, in the fit
    events × window at most. Source: the first-order chains of Rendle, Freudenthaler and Schmidt-Thieme, Factorizing
    Personalized Markov Chains, WWW 2010, with the skips of Shani, Heckerman and Brafman, JMLR 2005.
    """

    name = "markov"

    def __init__(
        self,
        *,
        window: int = 8,
        decay: float = 0.7,
        memory: float = 3.0,
        shrinkage: float = 5.0,
        symmetric: bool = True,
        neighbours: int = 1000,
    ) -> None:
        self.window = window
        self.decay = decay
        self.memory = memory
        self.shrinkage = shrinkage
        self.symmetric = symmetric
        self.neighbours = neighbours

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        steps = following(self._histories, self.window, lambda lag: self.decay ** (lag - 1))
        steps = without_diagonal(csr_matrix(steps + steps.T) if self.symmetric else steps).tocoo()
        root = np.sqrt(self._popularity)
        norm = root[steps.row] * root[steps.col] + np.float32(self.shrinkage)
        # Rows are items to come, so that each keeps the same number of items that lead to it.
        leading = csr_matrix((steps.data / np.maximum(norm, 1e-12), (steps.col, steps.row)), shape=steps.shape)
        similar = csr_matrix(strongest(leading, self.neighbours).T)
        return [ScoreSource(self._left(self._histories)[0], similar, "history")]

    def _left(self, histories: Histories) -> list[Matrix]:
        return [histories.matrix(histories.fading(self.memory))]
