"""Nearest neighbours: of the items in a history, or of the user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories
from avrec_spark.models.neighbourhoods import nearest_rows, unit_rows
from avrec_spark.recommend.topk import Matrix, ScoreSource


class ItemKNN(Recommender):
    """Scores X S: the similarities of an item to those that a user has.

    S[i, j] = Σ_u x_ui x_uj a_u / √(c_i + s)(c_j + s), kept where i is one of the `neighbours` most similar items of j;
    c_i = Σ_u x_ui² a_u, s is `shrinkage`, and a_u = n_u^−power weighs down users with many items (power 0: the cosine).
    Memory items × neighbours; time pairs of items that share a user.
    Source: Deshpande and Karypis, Item-Based Top-N Recommendation Algorithms, TOIS 2004.
    """

    name = "item-knn"

    def __init__(self, *, neighbours: int = 200, shrinkage: float = 0.0, power: float = 0.0) -> None:
        self.neighbours = neighbours
        self.shrinkage = shrinkage
        self.power = power

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        taken = self._seen.astype(np.float32)
        items = unit_rows(csr_matrix((row_weights(taken, self.power / 2) @ taken).T), self.shrinkage)
        similar = nearest_rows(items, items, self.neighbours, np.arange(len(self.items)))
        return [ScoreSource(taken, csr_matrix(similar.T), "history")]

    def _left(self, histories: Histories) -> list[Matrix]:
        return [histories.taken().astype(np.float32)]


class UserKNN(Recommender):
    """Scores W X: how similar the users are who have an item.

    W[u, v] = Σ_i x_ui x_vi a_i / √(c_u + s)(c_v + s), kept for the `neighbours` most similar users v of u; c_u =
    Σ_i x_ui² a_i, s is `shrinkage`, and a_i = n_i^−power weighs down popular items (power 0: the cosine).
    Memory users × neighbours; time pairs of users that share an item. Folding in a new user equals a new fit's row.
    Source: Herlocker et al., An Algorithmic Framework for Performing Collaborative Filtering, SIGIR 1999.
    """

    name = "user-knn"

    def __init__(self, *, neighbours: int = 100, shrinkage: float = 0.0, power: float = 0.0) -> None:
        self.neighbours = neighbours
        self.shrinkage = shrinkage
        self.power = power

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        taken = self._seen.astype(np.float32)
        return [ScoreSource(self._similar(self._histories, taken), taken)]

    def _left(self, histories: Histories) -> list[Matrix]:
        return [self._similar(histories, csr_matrix(self._sources[0].right))]

    def _similar(self, histories: Histories, fitted: csr_matrix) -> csr_matrix:
        """float32[n_users, fitted users]."""
        a = row_weights(csr_matrix(fitted.T), self.power / 2)
        theirs = unit_rows(csr_matrix(fitted @ a), self.shrinkage)
        own = unit_rows(csr_matrix(histories.taken().astype(np.float32) @ a), self.shrinkage)
        return nearest_rows(own, theirs, self.neighbours, histories.known)

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32]:
        return neighbours_influence(self._sources[0], user, past, items)


def row_weights(matrix: csr_matrix, power: float) -> Any:
    """Diagonal matrix with n^−power for a row of n entries; 1 for an empty row."""
    n = np.maximum(np.asarray(matrix.astype(bool).sum(axis=1), np.float64).ravel(), 1.0)
    return diags((n**-power).astype(np.float32))


def neighbours_influence(
    source: ScoreSource, user: int, past: NDArray[Any], items: NDArray[Any]
) -> NDArray[np.float32]:
    """float32[past, items] for scores W X: the weight of the neighbours who have the item and the past item as well."""
    weights, taken = csr_matrix(source.left[[user]]), csr_matrix(source.right)
    neighbours = weights.indices
    theirs = taken[neighbours]
    shared = theirs[:, past].T @ diags(weights.data) @ theirs[:, items]
    return np.asarray(shared.toarray(), np.float32)
