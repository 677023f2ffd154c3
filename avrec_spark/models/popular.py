"""Popularity: the reference that every other model has to beat."""

from __future__ import annotations

import numpy as np

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource


class Popular(Recommender):
    """An item's score is the number of users who have it."""

    name = "popular"

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        everybody = np.ones((len(training_set.users), 1), np.float32)
        return [ScoreSource(everybody, self._popularity[None, :], "constant")]
