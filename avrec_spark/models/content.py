"""Recommending by what items are made of, also items that nobody has touched."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource, unit


class ContentRecommender(Recommender):
    """User vectors are a function of the vectors of the items in their history; item vectors float32[n_items, d]."""

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        if not training_set.features:
            raise DataError(
                f"The model {self.name} needs item features, and was given none.",
                "Give the command a feature file, or run the job features before the snapshot.",
            )
        items = np.ascontiguousarray(self._items(training_set).T, np.float32)
        return [ScoreSource(self._users(self._histories, items), items)]

    def _left(self, histories: Histories) -> list[Matrix]:
        return [self._users(histories, np.asarray(self._sources[0].right))]

    @abstractmethod
    def _items(self, training_set: TrainingSet) -> NDArray[np.float32]:
        """float32[n_items, d]."""

    @abstractmethod
    def _users(self, histories: Histories, items: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n_users, d], given the item vectors float32[d, n_items]."""


class ContentCosine(ContentRecommender):
    """The cosine of the user's profile and the item, summed over the modalities.

    A modality's vectors are taken relative to their mean (`centred`; most of their energy is the same for all items)
    and brought to length 1; the profile is the sum of those of the history, by weight. Without a modality an item gets
    0 for it. Needs item features; memory (users + items) × dimensions. Folding in equals a new fit.
    Source: Lops, de Gemmis and Semeraro, Content-based Recommender Systems, Recommender Systems Handbook 2011.
    """

    name = "content-cosine"

    def __init__(self, *, centred: bool = True, memory: float = 0.0) -> None:
        self.centred = centred
        self.memory = memory

    def _items(self, training_set: TrainingSet) -> NDArray[np.float32]:
        parts = list(training_set.features.values())
        vectors = [unit(_centred(part) if self.centred else part.values) for part in parts]
        self._widths = np.array([part.shape[1] for part in vectors])
        return np.concatenate(vectors, axis=1)

    def _users(self, histories: Histories, items: NDArray[np.float32]) -> NDArray[np.float32]:
        events = histories.matrix(histories.weight * histories.fading(self.memory))
        profiles = np.asarray(events @ items.T, np.float32)
        return np.concatenate([unit(part) for part in np.split(profiles, np.cumsum(self._widths)[:-1], axis=1)], axis=1)

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"widths": self._widths}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._widths = extra["widths"]


class Ridge(ContentRecommender):
    """Each user's ridge regression of what they have on what it is made of: u = (FᵀF + λI)⁻¹ Fᵀ y, scores F u.

    F are the vectors of all modalities of the items with interactions, each dimension with mean 0 and deviation 1 over
    these items, a modality's squares summing to 1 on average; y is the weight of the pair, 0 for an item that the user
    does not have. One system for all users: memory (users + items) × dimensions, time items × dimensions².
    Needs item features. Folding in equals a new fit where the interactions bring no item its first user.
    Source: Hoerl and Kennard, Technometrics 1970; for users Basu, Hirsh and Cohen, AAAI 1998.
    """

    name = "ridge"

    def __init__(self, *, regularisation: float = 10.0) -> None:
        self.regularisation = regularisation

    def _items(self, training_set: TrainingSet) -> NDArray[np.float32]:
        self._warm = self._popularity > 0
        return np.concatenate([_standardised(part, self._warm) for part in training_set.features.values()], axis=1)

    def _users(self, histories: Histories, items: NDArray[np.float32]) -> NDArray[np.float32]:
        known = items[:, self._warm].astype(np.float64)
        system = known @ known.T
        system[np.diag_indices_from(system)] += self.regularisation
        explained = np.asarray(histories.matrix(histories.weight)[:, self._warm] @ known.T)
        return np.asarray(scipy.linalg.solve(system, explained.T, assume_a="pos").T, np.float32)

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"warm": self._warm}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._warm = extra["warm"]


def _centred(part: FeatureMatrix) -> NDArray[np.float32]:
    """Vectors less the mean of the present ones; absent rows stay zero."""
    if not part.present.any():
        return part.values
    return np.where(part.present[:, None], part.values - part.values[part.present].mean(axis=0), 0).astype(np.float32)


def _standardised(part: FeatureMatrix, warm: NDArray[np.bool_]) -> NDArray[np.float32]:
    chosen = part.present & warm
    if not chosen.any():
        return np.zeros_like(part.values)
    mean, deviation = part.values[chosen].mean(axis=0), part.values[chosen].std(axis=0)
    scaled = (part.values - mean) / np.where(deviation > 1e-6, deviation, np.inf) / np.sqrt(part.values.shape[1])
    return np.where(part.present[:, None], scaled, 0).astype(np.float32)
