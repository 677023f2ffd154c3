"""EASE: linear regression of every item on the other items, or of every user on the other users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import SettingsError
from avrec_spark.models.base import Recommender, choice
from avrec_spark.models.histories import Histories, following
from avrec_spark.models.knn import neighbours_influence, row_weights
from avrec_spark.models.neighbourhoods import strongest, without_diagonal
from avrec_spark.recommend.topk import Matrix, ScoreSource

SIDES = ("item", "user")
# Systems of equations that are solved together.
_AT_ONCE = 64


class EASE(Recommender):
    """Scores X B with B = argmin ‖A^½ (X − X B)‖² + λ‖B‖², diag B = 0; X is the binary user-item matrix.

    With the Gram matrix G = XᵀAX and P = (G + λI)⁻¹: B[i, j] = −P[i, j] / P[j, j]. A is diagonal, n_u^−power for a
    user of n_u items, over its mean. Three things can be chosen:

    - side "user" is the same on Xᵀ: scores Bᵀ X, B of users × users, and an item of n_i users weighs n_i^−power / mean.
    - window > 0 puts in the place of histories the windows of so many events in a row that one can lay over them:
      G[i, j] = Σ (1 − lag / window) over the events on i and j that are lag < window apart. On the item side only;
      needs times, and power counts for nothing.
    - memory > 0 lets an event k before the latest count e^(−k / memory) in the history (not in the fit).

    Up to `closed_form_limit` items (or users) this is exact: memory items², time items³. Beyond, each column is the
    same regression on the `neighbours` items alone that share most users with it: memory items × neighbours, time
    items × neighbours³, and the pairs of items that share a user.

    Folding in equals a new fit's row on the user side with power 0: a new user's column of B is a regression on the
    others. On the item side B stays, which a new fit would move a little.
    Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019; the restricted regression is the
    feature selection of Ning and Karypis, SLIM, ICDM 2011, without its positivity and ℓ1 terms.
    """

    name = "ease"

    def __init__(
        self,
        *,
        regularisation: float = 100.0,
        side: str = "item",
        power: float = 0.0,
        window: int = 0,
        memory: float = 0.0,
        closed_form_limit: int = 10_000,
        neighbours: int = 200,
    ) -> None:
        self.regularisation = regularisation
        self.side = choice("The parameter side of the model ease", side, SIDES)
        self.power = power
        self.window = window
        self.memory = memory
        self.closed_form_limit = closed_form_limit
        self.neighbours = neighbours
        if regularisation <= 0:
            raise SettingsError(f"The model ease has a regularisation of {regularisation}.", "Give a positive one.")
        if side == "user" and (window or memory):
            raise SettingsError(
                "The model ease has no window and no memory on the user side.", "Leave them 0, or set side=item."
            )

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        taken = self._seen.astype(np.float32)
        if self.side == "item":
            gram = self._windows() if self.window else _gram(csr_matrix(taken.T), self.power)
            weights, _ = self._regress(gram)
            return [ScoreSource(self._left(self._histories)[0], weights, "history")]
        weights, self._pivots = self._regress(_gram(taken, self.power))
        self._fitted = _transposed(weights)
        return [ScoreSource(self._fitted, taken)]

    def _windows(self) -> csr_matrix:
        """G of windows; a window's share of the pairs at some lag makes the kernel of the lags positive definite."""
        steps = following(self._histories, self.window - 1, lambda lag: 1 - lag / self.window)
        itself = following_itself(self._histories)
        return csr_matrix(steps + steps.T + itself)

    def _regress(self, gram: csr_matrix) -> tuple[Matrix, NDArray[np.float64]]:
        """(B float32[n, n], diag P float64[n]); diag P is empty beyond the closed form."""
        if gram.shape[0] <= self.closed_form_limit:
            return closed_form(gram.toarray(), self.regularisation)
        return restricted_form(gram, self.regularisation, self.neighbours), np.empty(0)

    # -- fold in -----------------------------------------------------------------------------------------------------

    def _left(self, histories: Histories) -> list[Matrix]:
        if self.side == "item":
            taken = histories.taken().astype(np.float32)
            return [histories.matrix(histories.fading(self.memory)) if self.memory else taken]
        return [self._on_users(histories)]

    def _on_users(self, histories: Histories) -> Matrix:
        """float32[n_users, fitted users]: the regression of each history on those of all fitted users but itself."""
        fitted = csr_matrix(self._sources[0].right)
        weighted = csr_matrix(fitted @ _importance(fitted, self.power))
        shared = csr_matrix(histories.taken().astype(np.float32) @ weighted.T)
        if len(self._pivots) == 0:
            targets = strongest(_without_known(shared, histories.known), self.neighbours)
            return _solve_restricted(csr_matrix(fitted @ weighted.T), self.regularisation, targets)
        # P off the diagonal is −B[v, u] P[u, u].
        inverse = -np.asarray(self._fitted, np.float64).T * self._pivots
        np.fill_diagonal(inverse, self._pivots)
        right_sides = _without_known(shared, histories.known).toarray().astype(np.float64)
        weights = right_sides @ inverse
        for row, own in enumerate(histories.known):
            if own >= 0:
                # The inverse without a row and column: Q − q qᵀ / q_own (block inversion).
                weights[row] -= weights[row, own] / inverse[own, own] * inverse[own]
                weights[row, own] = 0.0
        return weights.astype(np.float32)

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32] | None:
        if self.side == "item":
            return super()._influence(user, past, items)
        return neighbours_influence(self._sources[0], user, past, items)

    def _extra(self) -> dict[str, NDArray[Any]]:
        if self.side == "item":
            return {}
        # Kept twice only where users were folded in.
        folded = len(self._pivots) and self._sources[0].left is not self._fitted
        return {"pivots": self._pivots, **({"fitted": np.asarray(self._fitted)} if folded else {})}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        if self.side == "user":
            self._pivots = extra["pivots"]
            self._fitted = extra.get("fitted", self._sources[0].left)


def closed_form(gram: NDArray[Any], regularisation: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(B float32[n, n], diag P float64[n]) of the Gram matrix G [n, n]: B = −P / diag P off the diagonal.

    >>> closed_form(np.array([[2.0, 1.0], [1.0, 1.0]]), 1.0)[0].astype(float).round(3).tolist()
    [[0.0, 0.333], [0.5, 0.0]]
    """
    system = np.array(gram, np.float64)
    system[np.diag_indices_from(system)] += regularisation
    factor = scipy.linalg.cho_factor(system, overwrite_a=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(factor, np.eye(len(gram)), overwrite_b=True, check_finite=False)
    pivots = np.diag(inverse).copy()
    inverse /= -pivots
    np.fill_diagonal(inverse, 0.0)
    return inverse.astype(np.float32), pivots


def restricted_form(gram: csr_matrix, regularisation: float, neighbours: int) -> csr_matrix:
    """B float32[n, n] whose column j is the regression of j on the `neighbours` others of largest G[·, j] alone.

    With n − 1 neighbours it is the closed form.
    """
    targets = strongest(without_diagonal(csr_matrix(gram.T)), neighbours)
    return csr_matrix(_solve_restricted(gram, regularisation, targets).T)


def _solve_restricted(gram: csr_matrix, regularisation: float, targets: csr_matrix) -> csr_matrix:
    """For each row t of `targets`, with N where t is not 0: (G[N, N] + λI)⁻¹ t[N], as sparse as `targets`."""
    solved = targets.astype(np.float64)
    gram = csr_matrix(gram)
    length = np.diff(targets.indptr)
    order = np.argsort(length, kind="stable")
    for rows in np.split(order, range(_AT_ONCE, len(order), _AT_ONCE)):
        width = int(length[rows].max(initial=0))
        systems = np.zeros((len(rows), width, width))
        right_sides = np.zeros((len(rows), width))
        for n, row in enumerate(rows):
            part = slice(targets.indptr[row], targets.indptr[row + 1])
            chosen = targets.indices[part]
            systems[n, : len(chosen), : len(chosen)] = gram[chosen][:, chosen].toarray()
            right_sides[n, : len(chosen)] = targets.data[part]
        systems[:, np.arange(width), np.arange(width)] += regularisation
        answers = np.linalg.solve(systems, right_sides[:, :, None])[:, :, 0]
        for n, row in enumerate(rows):
            solved.data[targets.indptr[row] : targets.indptr[row + 1]] = answers[n, : length[row]]
    return solved.astype(np.float32)


def following_itself(histories: Histories) -> csr_matrix:
    """Diagonal float32[n_items, n_items]: the number of events on each item."""
    counts = np.bincount(histories.item, minlength=histories.n_items).astype(np.float32)
    number = np.arange(histories.n_items)
    return csr_matrix((counts, (number, number)), shape=(len(counts), len(counts)))


def _gram(rows: csr_matrix, power: float) -> csr_matrix:
    """Row products, a column of n entries weighing n^−power / mean."""
    return csr_matrix(rows @ _importance(rows, power) @ rows.T)


def _importance(rows: csr_matrix, power: float) -> Any:
    """Diagonal: each column's weight, with a mean of 1 over all entries, so that λ means the same for any power."""
    weights = row_weights(csr_matrix(rows.T), power)
    return weights * np.float32(rows.sum() / (rows @ weights).sum())


def _without_known(shared: csr_matrix, known: NDArray[np.int64]) -> csr_matrix:
    entries = shared.tocoo()
    kept = entries.col != known[entries.row]
    return csr_matrix((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=shared.shape)


def _transposed(matrix: Matrix) -> Matrix:
    return csr_matrix(matrix.T) if not isinstance(matrix, np.ndarray) else np.ascontiguousarray(matrix.T)
