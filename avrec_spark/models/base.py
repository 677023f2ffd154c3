"""The recommender port: a model is what turns a training set into score sources; everything else is here.

The public methods validate, map ids, remove what was seen and apply the cold policy (users without history get the
popular list); a subclass implements `_fit` and says its parameters in its constructor. A model whose users are a
function of their history also implements `_left`, and can fold in new users and new events without a new fit.
"""

from __future__ import annotations

import copy
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from avrec_spark import columns as c
from avrec_spark.dataset.index import IdIndex
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, FoldInError, SettingsError, UsageError
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource, top_k

_FORMAT = 4


class Recommender(ABC):
    """Fits on interactions, ranks items for users.

    After a fit: `users` and `items` are the id indices, `history` holds a trained model's metrics by epoch.
    """

    name: ClassVar[str]
    history: list[dict[str, float]]

    users: IdIndex
    items: IdIndex

    @abstractmethod
    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        """The mathematics: what scores users × items."""

    def _left(self, histories: Histories) -> list[Matrix]:
        """The left side of each score source for these histories, items as fitted; a model that cannot says so."""
        raise FoldInError(self.name)

    @property
    def needs_spark(self) -> bool:
        """Whether fitting runs on Spark, so that a command knows to start a session."""
        return False

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's parameters with their values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    # -- fit ---------------------------------------------------------------------------------------------------------

    def fit(self, interactions: pd.DataFrame, item_features: Mapping[str, pd.DataFrame] | None = None) -> Self:
        """Fit on columns user_id, item_id and optionally weight, timestamp; features are item_id, vector a modality."""
        return self.fit_training_set(TrainingSet.from_frames(interactions, item_features))

    def fit_training_set(self, training_set: TrainingSet) -> Self:
        """Fit afresh; nothing of an earlier fit remains. Raises `DataError` where no interaction weighs anything."""
        if not training_set.weight.any():
            raise DataError(
                f"The model {self.name} was given no interactions with a weight above 0.",
                "Check the events, their weights and the split.",
            )
        self.history = []
        self.users, self.items = training_set.users, training_set.items
        self._histories = Histories.of(training_set)
        self._fitted_users = len(training_set.users)
        self._now = float(training_set.timestamp.max())
        self._seen = self._histories.taken()
        self._popularity = np.asarray(self._seen.sum(axis=0), np.float32).ravel()
        self._sources = self._fit(training_set)
        return self

    # -- fold in -----------------------------------------------------------------------------------------------------

    def fold_in(self, interactions: pd.DataFrame) -> Self:
        """A copy that also counts these interactions, of users it knows and of new ones, without a new fit.

        Columns as in `fit`. What the fit learnt of items stays, also their popularity; the users' side is computed
        anew from their whole history. So the result is that of a new fit where the interactions would not have changed
        the item side. Interactions with items that the fit did not know say nothing and are left out.

        Raises `FoldInError` for a model whose users are no function of their history, and what `fit` raises.
        """
        added = TrainingSet.from_frames(interactions)
        strangers = added.users.ids[self.users.encode(added.users.ids) < 0]
        folded = copy.copy(self)
        folded.users = self.users.extended(strangers)
        item = self.items.encode(added.items.ids)[added.item_index]
        known = item >= 0
        user = folded.users.encode(added.users.ids)[added.user_index][known]
        n_users = len(folded.users)
        folded._histories = self._histories.plus(
            user, item[known], added.weight[known], added.timestamp[known], n_users
        )
        folded._seen = folded._histories.taken()
        touched = np.unique(user)
        histories = folded._histories.of_users(touched, self._fitted_users)
        lefts = self._left(histories) if len(touched) else [source.left[:0] for source in self._sources]
        folded._sources = [
            replace(source, left=_with_rows(source.left, n_users, touched, left))
            for source, left in zip(self._sources, lefts, strict=True)
        ]
        return folded

    def recommend_for_history(self, histories: Sequence[Sequence[Any]], k: int, **options: Any) -> pd.DataFrame:
        """What `recommend` gives users of whom only this is known: item ids in order of time, the latest last.

        user_id is the position in `histories`. The events count as a second apart, the last of them at the latest time
        that the fit has seen. An empty history, or one of unknown items only, gets the most popular items. `options`
        are those of `recommend`; raises what `fold_in` raises.
        """
        lengths = np.array([len(part) for part in histories], np.int64)
        number = np.repeat(np.arange(len(histories)), lengths)
        age = np.cumsum(lengths)[number] - 1 - np.arange(len(number))
        items = np.concatenate([np.asarray(part) for part in histories if len(part)] or [self.items.ids[:0]])
        events = pd.DataFrame({c.USER_ID: number, c.ITEM_ID: items, c.TIMESTAMP: self._now - age})
        return self._without_users().fold_in(events).recommend(np.arange(len(histories)), k, **options)

    def recommend_as(self, weights: csr_matrix, k: int, **options: Any) -> pd.DataFrame:
        """What `recommend` gives newcomers of whom it is only known which users they are like.

        `weights` [n, n_users] has what each of the model's users counts, rows as in `users` and of sum 1
        (`recommend.newcomers.similar_users`): the newcomer is the mean of these. user_id is the row, and one without
        weights gets the most popular items. `options` are `candidates` and `exclude` of `recommend`.
        """
        lefts = [csr_matrix(weights) @ source.left for source in self._sources]
        return self._newcomers(lefts, np.diff(csr_matrix(weights).indptr) > 0, k, **options)

    def _newcomers(self, lefts: Sequence[Matrix], known: NDArray[np.bool_], k: int, **options: Any) -> pd.DataFrame:
        """Lists for users without history whose left sides these are; the popular list where bool[n] says unknown."""
        there = copy.copy(self)
        there.users = IdIndex(np.arange(len(known)))
        there._sources = [replace(source, left=left) for source, left in zip(self._sources, lefts, strict=True)]
        # A stored pair is what tells `recommend` a user with a history; it is not left out of the list.
        rows = np.flatnonzero(known)
        pairs = rows, np.zeros(len(rows), np.int64)
        there._seen = csr_matrix((np.ones(len(rows), np.bool_), pairs), shape=(len(known), len(self.items)))
        return there.recommend(np.arange(len(known)), k, filter_seen=False, **options)

    def _without_users(self) -> Self:
        """The items' side alone."""
        empty = copy.copy(self)
        nobody = np.empty(0, np.int64)
        empty.users = IdIndex(nobody)
        empty._fitted_users = 0
        empty._histories = self._histories.of_users(nobody, 0)
        empty._sources = [replace(source, left=source.left[:0]) for source in self._sources]
        return empty

    # -- recommend ---------------------------------------------------------------------------------------------------

    def score_sources(self) -> list[ScoreSource]:
        """What the scores are made of: the sum of weight × left @ right."""
        return self._sources

    def recommend(
        self,
        users: Iterable[Any],
        k: int,
        filter_seen: bool = True,
        candidates: Iterable[Any] | None = None,
        exclude: Sequence[Sequence[Any] | None] | None = None,
    ) -> pd.DataFrame:
        """The k best items of each user: user_id, item_id, rank (from 1), score; best first.

        `users` are ids; an unknown user, or one without history, gets the most popular items. `candidates` restricts
        the items, and `exclude` has for each user further items that must not come; unknown ids in either are ignored.
        A user may get fewer than k items when there are no more.
        """
        if k < 1:
            raise UsageError(f"k is {k}.", "Ask for at least one item.")
        ids = pd.Series(users if isinstance(users, np.ndarray) else list(users)).to_numpy()
        positions = self.users.encode(ids)
        allowed = None
        if candidates is not None:
            allowed = self.items.encode(candidates)
            allowed = np.unique(allowed[allowed >= 0])
        excluded = None if exclude is None else self._pairs(exclude)
        known = np.flatnonzero(positions >= 0)
        known = known[np.diff(self._seen.indptr)[positions[known]] > 0]
        rows = np.full((len(ids), k), -1, np.int32)
        scores = np.zeros((len(ids), k), np.float32)
        seen = self._seen[positions[known]] if filter_seen else None
        if excluded is not None:
            seen = excluded[known] if seen is None else seen + excluded[known]
        rows[known], scores[known] = top_k(self._sources, positions[known], k, seen, allowed)
        cold = np.setdiff1d(np.arange(len(ids)), known)
        if len(cold):
            popular = ScoreSource(np.ones((1, 1), np.float32), self._popularity[None, :], "constant")
            # Strangers without anything to leave out share one list.
            everybody = np.zeros(1 if excluded is None else len(cold), np.int64)
            seen = None if excluded is None else excluded[cold]
            rows[cold], scores[cold] = top_k([popular], everybody, k, seen, allowed)
        return self._frame(ids, rows, scores)

    def popularity(self, items: Iterable[Any]) -> NDArray[np.float32]:
        """How many users had each of these items in the fit; 0 for an unknown one."""
        places = self.items.encode(items)
        return np.where(places >= 0, self._popularity[places], np.float32(0))

    def _pairs(self, items: Sequence[Sequence[Any] | None]) -> csr_matrix:
        """bool[len(items), n_items] with a row for each list of item ids."""
        lists = [np.asarray([] if part is None else part) for part in items]
        lengths = [len(part) for part in lists]
        columns = self.items.encode(np.concatenate([part for part in lists if len(part)] or [np.empty(0, np.int64)]))
        found = columns >= 0
        pairs = np.repeat(np.arange(len(lists)), lengths)[found], columns[found]
        return csr_matrix((np.ones(found.sum(), np.bool_), pairs), shape=(len(lists), len(self.items)))

    def _frame(self, ids: NDArray[Any], rows: NDArray[np.int32], scores: NDArray[np.float32]) -> pd.DataFrame:
        found = rows >= 0
        users, ranks = np.nonzero(found)
        return pd.DataFrame(
            {
                c.USER_ID: ids[users],
                c.ITEM_ID: self.items.decode(rows[found]),
                c.RANK: (ranks + 1).astype(np.int32),
                c.SCORE: scores[found].astype(np.float64),
            }
        )

    def because(self, users: Iterable[Any], items: Iterable[Any]) -> list[Any]:
        """For each pair, the item of the user's history that speaks most for the item; None where nothing does.

        For history sources the one that contributes most to the score, for factors the most similar one.
        """
        user_index, item_index = self.users.encode(users), self.items.encode(items)
        reasons: list[Any] = [None] * len(user_index)
        known = np.flatnonzero((user_index >= 0) & (item_index >= 0))
        known = known[np.argsort(user_index[known], kind="stable")]
        for rows in np.split(known, np.flatnonzero(np.diff(user_index[known])) + 1):
            if len(rows) == 0:
                continue
            user = int(user_index[rows[0]])
            past = self._seen.indices[self._seen.indptr[user] : self._seen.indptr[user + 1]]
            if len(past) == 0:
                continue
            strength = self._influence(user, past, item_index[rows])
            if strength is None:
                break
            for row, best, value in zip(rows, strength.argmax(axis=0), strength.max(axis=0), strict=True):
                reasons[row] = self.items.ids[past[best]] if value > 0 else None
        return reasons

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32] | None:
        """float32[past, items]: how much each item of a user's past speaks for each item; None: it cannot be said."""
        source = self._sources[0]
        return None if source.kind == "constant" else source.influence(user, past, items)

    # -- save and load -----------------------------------------------------------------------------------------------

    def _extra(self) -> dict[str, NDArray[Any]]:
        """Further arrays that a subclass wants to keep."""
        return {}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `_extra` gave."""

    def _stored_sources(self) -> list[ScoreSource]:
        """The score sources to keep; fewer where `_restore_parts` makes them anew."""
        return self._sources

    def _save_parts(self, folder: Path) -> None:
        """Write what is neither an array nor a parameter: the models that a model is made of."""

    def _restore_parts(self, folder: Path) -> None:
        """Take back what `_save_parts` wrote; everything else is there already."""

    def save(self, folder: str | Path) -> None:
        """Write model.json and arrays.npz; no code is pickled."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {"users": plain(self.users.ids), "items": plain(self.items.ids), "popularity": self._popularity}
        arrays |= {f"event.{name}": value for name, value in self._histories.arrays().items()}
        sources = self._stored_sources()
        for number, source in enumerate(sources):
            arrays |= _pack(f"left{number}", source.left) | _pack(f"right{number}", source.right)
        arrays |= {f"extra.{name}": value for name, value in self._extra().items()}
        np.savez(target / "arrays.npz", **arrays)
        about = {
            "format": _FORMAT,
            "model": self.name,
            "parameters": self.parameters,
            "history": self.history,
            "now": self._now,
            "fitted_users": self._fitted_users,
            "sources": [{"kind": source.kind, "weight": source.weight} for source in sources],
        }
        (target / "model.json").write_text(json.dumps(about, indent=2, default=str), encoding="utf-8")
        self._save_parts(target)

    @staticmethod
    def load(folder: str | Path) -> Recommender:
        """The model that `save` wrote. Raises `UsageError` where the folder holds none, or one of another format."""
        from avrec_spark.models import registry

        source = Path(folder)
        if not (source / "model.json").is_file():
            raise UsageError(f"{source} holds no saved model.", "Name a folder that Recommender.save has written.")
        about = json.loads((source / "model.json").read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise UsageError(
                f"The model in {source} has the format {about['format']}; this version reads {_FORMAT}.",
                "Load it with the version that saved it, or fit it again.",
            )
        model = registry.create(about["model"], **about["parameters"])
        with np.load(source / "arrays.npz") as arrays:
            model.history, model._now, model._fitted_users = about["history"], about["now"], about["fitted_users"]
            model.users, model.items = IdIndex(arrays["users"]), IdIndex(arrays["items"])
            model._popularity = arrays["popularity"]
            model._histories = Histories.restored(with_prefix("event.", arrays))
            model._seen = model._histories.taken()
            model._sources = [
                ScoreSource(_unpack(f"left{n}", arrays), _unpack(f"right{n}", arrays), **said)
                for n, said in enumerate(about["sources"])
            ]
            extra = with_prefix("extra.", arrays)
        model._restore(extra)
        model._restore_parts(source)
        return model


def choice(setting: str, value: str, choices: Sequence[str]) -> str:
    """The value, where it is one of the choices; raises `SettingsError` where it is none."""
    if value not in choices:
        raise SettingsError(f"{setting} cannot be {value!r}.", f"Choose of {', '.join(choices)}.")
    return value


def plain(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids without Python objects, so that they can be stored without pickle."""
    return ids.astype(str) if ids.dtype == object else ids


def with_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose name begins with that, by the rest of their names."""
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def _with_rows(matrix: Matrix, n_rows: int, at: NDArray[np.int64], rows: Matrix) -> Matrix:
    """The matrix with `n_rows` rows, those `at` replaced by `rows`; further ones are zero."""
    nothing = matrix.shape[0] + rows.shape[0]
    order = np.full(n_rows, nothing)
    order[: matrix.shape[0]] = np.arange(matrix.shape[0])
    order[at] = matrix.shape[0] + np.arange(rows.shape[0])
    if isinstance(matrix, np.ndarray):
        return np.concatenate([matrix, rows, np.zeros((1, matrix.shape[1]), np.float32)])[order]
    return csr_matrix(vstack([matrix, rows, csr_matrix((1, matrix.shape[1]), dtype=np.float32)], format="csr")[order])


def _pack(name: str, matrix: NDArray[Any] | csr_matrix) -> dict[str, NDArray[Any]]:
    if isinstance(matrix, np.ndarray):
        return {name: matrix}
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(matrix.shape)}
    return {f"{name}.{part}": value for part, value in parts.items()}


def _unpack(name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | csr_matrix:
    if name in arrays:
        return arrays[name]
    data, indices, indptr, shape = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape"))
    return csr_matrix((data, indices, indptr), shape=tuple(shape))
