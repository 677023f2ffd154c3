"""Random order: the floor under every metric."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource

_DIMENSION = 32


class RandomOrder(Recommender):
    """Each user's items in an order drawn at random, the same at each request.

    Scores are products of random directions; given a user, those of the items are independent and equally distributed,
    so that any order is as likely as any other. Memory (users + items) × 32 floats.
    """

    name = "random"

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        random = np.random.default_rng(self.seed)
        users = random.normal(size=(len(training_set.users), _DIMENSION)).astype(np.float32)
        items = random.normal(size=(_DIMENSION, len(training_set.items))).astype(np.float32)
        # Of one length, or the longest would lead many lists and end the others.
        return [ScoreSource(users, items / np.linalg.norm(items, axis=0))]

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> None:
        """Chance has no reasons."""
