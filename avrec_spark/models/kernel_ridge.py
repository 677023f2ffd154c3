"""Kernel ridge regression: tastes as smooth functions of what items are made of, best for items nobody has touched."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories
from avrec_spark.models.kernels import ContentKernel, chosen
from avrec_spark.recommend.topk import Matrix, ScoreSource


class KernelRidge(Recommender):
    """Scores X S (K + λI)⁻¹ k_j: what users have, smoothed over users, then regressed on content.

    X are the weights of users' interactions; X S = B X is their mean over similar users, with the user-side ridge
    B = G (G + ρI)⁻¹, G = Z Zᵀ, Z = X D, D = |x_i|^−power: what one user alone has of an item is mostly chance, and
    popular items say less of who is alike. K is the `ContentKernel` of the modalities that lower the leave-one-out
    error of X S.

    λ is `regularisation`, ρ `smoothing`. Needs item features. Memory items², time items³. Folding in equals a new fit
    where the items' side would not change.
    Sources: Saunders, Gammerman and Vovk, ICML 1998 (kernel ridge regression); Steck 2019 for the ridge of users.
    """

    name = "kernel-ridge"

    def __init__(
        self, *, width: float = 2.0, regularisation: float = 3.0, smoothing: float = 300.0, power: float = 0.5
    ) -> None:
        self.width = width
        self.regularisation = regularisation
        self.smoothing = smoothing
        self.power = power

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        features = {name: matrix for name, matrix in training_set.features.items() if matrix.present.any()}
        if not features:
            raise DataError(
                f"The model {self.name} needs item features, and was given none.",
                "Give the command a feature file, or run the job features before the snapshot.",
            )
        left = self._histories.matrix(self._histories.weight)
        warm = np.flatnonzero(self._popularity > 0)
        together = (left[:, warm].T @ left[:, warm]).toarray().astype(np.float64)
        smoothed = self._smoothed(together)
        # R Rᵀ = (X S)ᵀ X S: the same errors as of X S, in items² instead of items × users.
        jitter = 1e-9 * np.trace(together) * np.eye(len(warm))
        tastes = smoothed.T @ np.linalg.cholesky(together + jitter)
        whole = ContentKernel.of(features, warm, self.width)
        kernel = chosen(whole, features, warm, tastes, self.regularisation)(features).astype(np.float64)
        known = kernel[:, warm]
        known[np.diag_indices_from(known)] += self.regularisation
        weights = np.zeros((len(self.items), len(self.items)), np.float32)
        weights[warm] = smoothed @ scipy.linalg.solve(known, kernel, assume_a="pos")
        return [ScoreSource(left, weights, "history")]

    def _smoothed(self, product: NDArray[np.float64]) -> NDArray[np.float64]:
        """S = D (D XᵀX D + ρI)⁻¹ D XᵀX, float64[items, items], given XᵀX: the ridge of users, from the items' side."""
        # A pair whose weights sum to 0 is no taste.
        scale = np.maximum(np.sqrt(product.diagonal()), 1e-12) ** -self.power
        scaled = product * scale[:, None]
        system = scaled * scale
        system[np.diag_indices_from(system)] += self.smoothing
        return np.asarray(scipy.linalg.solve(system, scaled, assume_a="pos") * scale[:, None], np.float64)

    def _left(self, histories: Histories) -> list[Matrix]:
        return [histories.matrix(histories.weight)]
