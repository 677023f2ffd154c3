"""What users did, event by event: the input of every model whose users are a function of their past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import TrainingSet


@dataclass(frozen=True)
class Histories:
    """n events in the order of users, and of time within a user: int64 `user`[n] and `item`[n], float32 `weight`[n],
    float64 `timestamp`[n] in epoch seconds.

    Events of one user at one time are in the order of the (shuffled) item index, so that the order of the rows changes
    nothing. `known` int64[n_users] is each user's position in the fitted model, -1 for a stranger.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    weight: NDArray[np.float32]
    timestamp: NDArray[np.float64]
    known: NDArray[np.int64]
    n_items: int

    @classmethod
    def of(cls, training_set: TrainingSet) -> Histories:
        """All events of a training set."""
        part = training_set
        known = np.arange(len(part.users))
        return cls._ordered(part.user_index, part.item_index, part.weight, part.timestamp, known, len(part.items))

    @classmethod
    def _ordered(
        cls,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        weight: NDArray[np.float32],
        timestamp: NDArray[np.float64],
        known: NDArray[np.int64],
        n_items: int,
    ) -> Histories:
        order = np.lexsort((weight, item, timestamp, user))
        return cls(user[order], item[order], weight[order], timestamp[order], known, n_items)

    @property
    def n_users(self) -> int:
        return len(self.known)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64[n_users + 1]: where each user's events begin."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    def recency(self) -> NDArray[np.int64]:
        """int64[n]: 0 for a user's latest event, 1 for the one before, and so on."""
        return np.asarray(self.starts[self.user + 1] - 1 - np.arange(len(self.user)), np.int64)

    def fading(self, memory: float) -> NDArray[np.float32]:
        """float32[n]: e^(−k / memory) for the event k places before the latest; 1 for all where memory is 0.

        Events of one user at one time share the mean of theirs: which of them came last cannot be known.
        """
        if not memory or len(self.user) == 0:
            return np.ones(len(self.user), np.float32)
        moment = np.cumsum((np.diff(self.user, prepend=-1) != 0) | (np.diff(self.timestamp, prepend=0.0) != 0)) - 1
        fade = np.exp(-self.recency() / memory)
        return (np.bincount(moment, fade) / np.bincount(moment)).astype(np.float32)[moment]

    def matrix(self, values: NDArray[np.float32]) -> csr_matrix:
        """float32[n_users, n_items] of one value an event, those of repeated pairs summed."""
        return csr_matrix((values, (self.user, self.item)), shape=(self.n_users, self.n_items), dtype=np.float32)

    def taken(self) -> csr_matrix:
        """bool[n_users, n_items]: a stored pair was seen; it is False where the weights of its events sum to 0."""
        return self.matrix(self.weight).astype(bool)

    def of_users(self, users: NDArray[np.int64], n_fitted: int) -> Histories:
        """These users only, in this order; those from `n_fitted` on are strangers to the fitted model."""
        length = self.starts[users + 1] - self.starts[users]
        rows = np.repeat(self.starts[users] - (np.cumsum(length) - length), length) + np.arange(length.sum())
        known = np.where(users < n_fitted, users, -1)
        number = np.repeat(np.arange(len(users)), length)
        return Histories(number, self.item[rows], self.weight[rows], self.timestamp[rows], known, self.n_items)

    def plus(
        self,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        weight: NDArray[np.float32],
        timestamp: NDArray[np.float64],
        n_users: int,
    ) -> Histories:
        """With further events, of users up to `n_users`."""
        return Histories._ordered(
            np.concatenate([self.user, user]),
            np.concatenate([self.item, item]),
            np.concatenate([self.weight, weight]),
            np.concatenate([self.timestamp, timestamp]),
            np.arange(n_users),
            self.n_items,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restored` takes."""
        return {
            "starts": self.starts,
            "item": self.item.astype(np.int32),
            "weight": self.weight,
            "timestamp": self.timestamp,
            "n_items": np.array(self.n_items),
        }

    @classmethod
    def restored(cls, arrays: dict[str, NDArray[Any]]) -> Histories:
        """The histories of a fitted model that `arrays` gave."""
        known = np.arange(len(arrays["starts"]) - 1)
        user = np.repeat(known, np.diff(arrays["starts"]))
        item = arrays["item"].astype(np.int64)
        return cls(user, item, arrays["weight"], arrays["timestamp"], known, int(arrays["n_items"]))


def following(histories: Histories, window: int, weight: Callable[[int], float]) -> csr_matrix:
    """float32[n_items, n_items]: C[i, j] = Σ weight(lag) over events on i that one user's event on j follows.

    `lag` counts the user's events from i to j, 1 for the next one, and goes up to `window`. Time and memory grow with
    events × window.
    """
    shape = (histories.n_items, histories.n_items)
    total = csr_matrix(shape, dtype=np.float32)
    for lag in range(1, min(window, len(histories.user) - 1) + 1):
        same = np.flatnonzero(histories.user[lag:] == histories.user[:-lag])
        if len(same) == 0:
            break
        pairs = histories.item[same], histories.item[same + lag]
        total = total + csr_matrix((np.full(len(same), weight(lag), np.float32), pairs), shape=shape)
    return total
