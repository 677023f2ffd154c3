"""A fitted fusion model brought up to date with new events, users and items, and the gate against forgetting."""

from __future__ import annotations

import copy
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.evaluation import executors
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion.recommender import Fusion

METRIC, _K = "ndcg@10", 10
_PART = "recent"
_ROW_GROUPS = 8


@dataclass(frozen=True)
class Update:
    """The updated model, and NDCG@10 before and after it.

    `older` is measured on what the earlier fit was validated on, among the items that it knew; `newer` on the
    validation of the new training set, None where it has none. Before means the earlier model with the new events
    folded in: what would be served without an update.
    """

    model: Fusion
    older: tuple[float, float]
    newer: tuple[float, float] | None
    most_forgotten: float

    @property
    def forgotten(self) -> float:
        """The share of the older figure that was lost; below 0 where it rose.

        >>> round(Update(Fusion(), (0.2, 0.15), None, 0.05).forgotten, 2)
        0.25
        """
        before, after = self.older
        return 1 - after / before if before > 0 else 0.0

    @property
    def accepted(self) -> bool:
        return self.forgotten <= self.most_forgotten

    def __str__(self) -> str:
        newer = "" if self.newer is None else f", on the new {self.newer[0]:.4f} → {self.newer[1]:.4f}"
        verdict = "accepted" if self.accepted else f"refused, more than {self.most_forgotten:.1%} is forgotten"
        return f"{METRIC} on the older part {self.older[0]:.4f} → {self.older[1]:.4f}{newer}: {verdict}"


def update(
    model: Fusion,
    before: Fusion,
    training_set: TrainingSet,
    *,
    epochs: int = 3,
    rehearsal: float = 1.0,
    most_forgotten: float = 0.05,
    folder: str | None = None,
) -> Update:
    """Fit `model` on the training set from where `before` ended, reading little more than what is new.

    Vectors are carried over by id and new ones begin at random. An epoch reads the interactions that `before` does not
    know and, so that the old ones are not forgotten, `rehearsal` times as many of those, drawn at random; the graph has
    all of them. What `before` was validated on is left out of training, since it says what was forgotten: at most the
    share `most_forgotten`, or the update is not `accepted`, and the caller does well to fit anew.

    The set is written to `folder`, which ranks on other machines must reach; None: a temporary one. Raises `DataError`
    where `before` had no validation, and for another configuration (`Fusion.starting_from`).
    """
    older = before.held_out()
    if older.empty:
        raise DataError(
            "The model to update was fitted without validation: nothing tells what it must not forget.",
            "Fit it anew on a snapshot with a validation part, and update that one.",
        )
    known = without(training_set, older)
    new = ~takes(before, known)
    after = copy.copy(model).starting_from(before)
    after.options = {**model.options, "epochs": epochs, "part": _PART}
    read, groups = recent(new, rehearsal, after.batch_size, after.seed), max(_ROW_GROUPS, model.workers)
    with tempfile.TemporaryDirectory(prefix="avrec-update-") if folder is None else nullcontext(folder) as place:
        written = known.write(place, groups)
        written.write_part(_PART, read, groups)
        after.fit_training_set(written)
    after.options, after.warm_start = model.options, None
    asked = before.fold_in(_frame(known, new)) if new.any() else before
    newer = training_set.held_out()
    return Update(
        after,
        (quality(asked, older, before.items.ids), quality(after, older, before.items.ids)),
        None if newer.empty else (quality(asked, newer), quality(after, newer)),
        most_forgotten,
    )


def without(training_set: TrainingSet, pairs: pd.DataFrame) -> TrainingSet:
    """The training set without the interactions of these users with these items (user_id, item_id)."""
    users, items = training_set.users.encode(pairs[c.USER_ID]), training_set.items.encode(pairs[c.ITEM_ID])
    found = (users >= 0) & (items >= 0)
    n_items = len(training_set.items)
    taken = training_set.user_index * n_items + training_set.item_index
    return _rows(training_set, ~np.isin(taken, users[found] * n_items + items[found]))


def takes(model: Recommender, training_set: TrainingSet) -> NDArray[np.bool_]:
    """Which interactions of a training set the fitted model knows, by user and item."""
    user = model.users.encode(training_set.users.ids)[training_set.user_index]
    item = model.items.encode(training_set.items.ids)[training_set.item_index]
    known = (user >= 0) & (item >= 0)
    known[known] = np.asarray(model._seen[user[known], item[known]]).ravel()
    return known


def recent(new: NDArray[np.bool_], rehearsal: float, least: int, seed: int) -> NDArray[np.int64]:
    """Positions of the new interactions and of `rehearsal` times as many old ones; where nothing is new, of `least`.

    >>> recent(np.array([False, True, False]), rehearsal=2.0, least=1, seed=0).tolist()
    [0, 1, 2]
    """
    fresh, old = np.flatnonzero(new), np.flatnonzero(~new)
    wanted = min(len(old), round(rehearsal * len(fresh)) if len(fresh) else least)
    drawn = np.random.default_rng(seed).choice(old, wanted, replace=False)
    return np.sort(np.concatenate([fresh, drawn]))


def quality(model: Recommender, pairs: pd.DataFrame, candidates: NDArray[Any] | None = None) -> float:
    """NDCG@10 of the model's lists against pairs user_id, item_id, the mean over their users."""
    lists = model.recommend(pairs[c.USER_ID].unique(), _K, candidates=candidates)
    return float(executors.evaluate_numpy(lists, pairs, (_K,), len(model.items), bootstrap=0)[METRIC]["mean"])


def _rows(training_set: TrainingSet, kept: NDArray[np.bool_]) -> TrainingSet:
    names = ("user_index", "item_index", "weight", "timestamp")
    return replace(training_set, path=None, **{name: getattr(training_set, name)[kept] for name in names})


def _frame(training_set: TrainingSet, kept: NDArray[np.bool_]) -> pd.DataFrame:
    part = _rows(training_set, kept)
    ids = {c.USER_ID: part.users.decode(part.user_index), c.ITEM_ID: part.items.decode(part.item_index)}
    return pd.DataFrame({**ids, c.WEIGHT: part.weight, c.TIMESTAMP: part.timestamp})
