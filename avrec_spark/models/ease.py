"""EASE: a linear item-item model in closed form."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource


class EASE(Recommender):
    """Scores X B with B = argmin ‖X − X B‖² + λ‖B‖², diag B = 0; X is the binary user-item matrix.

    With P = (XᵀX + λI)⁻¹: B[i, j] = −P[i, j] / P[j, j]. Memory items², time items³.
    Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
    """

    name = "ease"

    def __init__(self, *, regularisation: float = 100.0) -> None:
        self.regularisation = regularisation

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        history = self._seen.astype(np.float32)
        gram = (history.T @ history).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.regularisation
        factor = scipy.linalg.cho_factor(gram, overwrite_a=True, check_finite=False)
        inverse = scipy.linalg.cho_solve(factor, np.eye(len(gram)), overwrite_b=True, check_finite=False)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return [ScoreSource(history, weights.astype(np.float32), "history")]
