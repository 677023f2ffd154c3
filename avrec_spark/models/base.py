"""The recommender port: a model is what turns a training set into score sources; everything else is here.

The public methods validate, map ids, remove what was seen and apply the cold policy (users without history get the
popular list); a subclass implements `_fit` and says its parameters in its constructor.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.dataset.index import IdIndex
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, UsageError
from avrec_spark.recommend.topk import ScoreSource, top_k

_FORMAT = 1


class Recommender(ABC):
    """Fits on interactions, ranks items for users.

    After a fit: `users` and `items` are the id indices, `history` holds a trained model's metrics by epoch.
    """

    name: ClassVar[str]
    # Whether fitting runs on Spark, so that a command knows to start a session.
    needs_spark: ClassVar[bool] = False
    history: list[dict[str, float]]

    users: IdIndex
    items: IdIndex

    @abstractmethod
    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        """The mathematics: what scores users × items."""

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
        self._seen = training_set.matrix().astype(bool)
        self._popularity = np.asarray(self._seen.sum(axis=0), np.float32).ravel()
        self._sources = self._fit(training_set)
        return self

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
        source = self._sources[0]
        user_index, item_index = self.users.encode(users), self.items.encode(items)
        reasons: list[Any] = [None] * len(user_index)
        if source.kind == "constant":
            return reasons
        known = np.flatnonzero((user_index >= 0) & (item_index >= 0))
        known = known[np.argsort(user_index[known], kind="stable")]
        for rows in np.split(known, np.flatnonzero(np.diff(user_index[known])) + 1):
            if len(rows) == 0:
                continue
            user = int(user_index[rows[0]])
            past = self._seen.indices[self._seen.indptr[user] : self._seen.indptr[user + 1]]
            if len(past) == 0:
                continue
            strength = source.influence(user, past, item_index[rows])
            for row, best, value in zip(rows, strength.argmax(axis=0), strength.max(axis=0), strict=True):
                reasons[row] = self.items.ids[past[best]] if value > 0 else None
        return reasons

    # -- save and load -----------------------------------------------------------------------------------------------

    def _extra(self) -> dict[str, NDArray[Any]]:
        """Further arrays that a subclass wants to keep."""
        return {}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `_extra` gave."""

    def save(self, folder: str | Path) -> None:
        """Write model.json and arrays.npz; no code is pickled."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {"users": _plain(self.users.ids), "items": _plain(self.items.ids), "popularity": self._popularity}
        arrays |= _pack("seen", self._seen)
        for number, source in enumerate(self._sources):
            arrays |= _pack(f"left{number}", source.left) | _pack(f"right{number}", source.right)
        arrays |= {f"extra.{name}": value for name, value in self._extra().items()}
        np.savez(target / "arrays.npz", **arrays)
        about = {
            "format": _FORMAT,
            "model": self.name,
            "parameters": self.parameters,
            "history": self.history,
            "sources": [{"kind": source.kind, "weight": source.weight} for source in self._sources],
        }
        (target / "model.json").write_text(json.dumps(about, indent=2, default=str), encoding="utf-8")

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
            model.history = about["history"]
            model.users, model.items = IdIndex(arrays["users"]), IdIndex(arrays["items"])
            model._popularity, model._seen = arrays["popularity"], _unpack("seen", arrays)
            model._sources = [
                ScoreSource(_unpack(f"left{n}", arrays), _unpack(f"right{n}", arrays), **said)
                for n, said in enumerate(about["sources"])
            ]
            extra = {name.removeprefix("extra."): arrays[name] for name in arrays.files if name.startswith("extra.")}
        model._restore(extra)
        return model


def _plain(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids without Python objects, so that they can be stored without pickle."""
    return ids.astype(str) if ids.dtype == object else ids


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
