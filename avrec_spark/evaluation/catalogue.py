"""What is known of the items beyond their ids: popularity in train, vectors, categories, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.errors import DataError, MissingColumnsError


@dataclass(frozen=True)
class Catalogue:
    """Facts of n items, aligned to `ids`; each but the ids may be absent (None).

    `train_users` int64[n] counts the train users of each item, of `n_users` in all. `vectors` float32[n, d] have
    length 1, or 0 where an item has none. `categories` is sparse n × categories, rows sum to 1, or to 0 where an item
    has none. `groups` holds one label an item, None where it has none.
    """

    ids: NDArray[Any]
    train_users: NDArray[np.int64] | None = None
    n_users: int = 0
    vectors: NDArray[np.float32] | None = None
    categories: csr_matrix | None = None
    groups: NDArray[np.object_] | None = None

    @classmethod
    def from_frames(
        cls,
        items: Iterable[Any] | None = None,
        train: pd.DataFrame | None = None,
        vectors: pd.DataFrame | None = None,
        categories: pd.DataFrame | None = None,
        groups: pd.DataFrame | None = None,
    ) -> Catalogue:
        """From frames of pandas; the catalogue is the items of all of them.

        `train` has user_id, item_id; `vectors` item_id, vector; `categories` item_id, categories (a list each, or one
        label); `groups` item_id, group (a creator, say). A repeated pair of train counts once. Raises
        `MissingColumnsError`, and `DataError` for an item with two groups, or vectors of several widths or with NaN.

        >>> train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7]})
        >>> catalogue = Catalogue.from_frames(items=[9], train=train)
        >>> catalogue.ids.tolist(), catalogue.train_users.tolist(), catalogue.n_users
        ([7, 8, 9], [2, 1, 0], 2)
        """
        parts = {"train": train, "vectors": vectors, "categories": categories, "groups": groups}
        needed = {c.USER_ID, c.ITEM_ID}, {c.ITEM_ID, c.VECTOR}, {c.ITEM_ID, c.CATEGORIES}, {c.ITEM_ID, c.GROUP}
        for (name, part), names in zip(parts.items(), needed, strict=True):
            if part is not None and not names <= set(part.columns):
                raise MissingColumnsError(f"The frame {name}", names - set(part.columns), map(str, part.columns))
        columns = [part[c.ITEM_ID] for part in parts.values() if part is not None]
        columns += [] if items is None else [pd.Series(list(items))]
        ids = np.sort(pd.concat([column.drop_duplicates() for column in columns]).unique()) if columns else np.array([])
        index = pd.Index(ids)
        pairs = None if train is None else train[[c.USER_ID, c.ITEM_ID]].drop_duplicates()
        return cls(
            ids=ids,
            train_users=None if pairs is None else _counts(index.get_indexer(pd.Index(pairs[c.ITEM_ID])), len(ids)),
            n_users=0 if pairs is None else int(pairs[c.USER_ID].nunique()),
            vectors=None if vectors is None else _unit_vectors(index, vectors),
            categories=None if categories is None else _shares(index, categories),
            groups=None if groups is None else _labels(index, groups),
        )

    def popularity_order(self) -> NDArray[np.int64]:
        """int64[n]: the place of each item by train users, 0 for the most popular; ties in the order of ids."""
        assert self.train_users is not None
        places = np.empty(len(self.ids), np.int64)
        places[np.argsort(-self.train_users, kind="stable")] = np.arange(len(self.ids))
        return places


def side_by_side(features: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """item_id, vector of several modalities (item_id, vector each) as one; None where there is no modality.

    Each modality's vectors get length 1, so that all count alike: for items that have all of them, the cosine is the
    mean of the modalities' cosines. An item that lacks one has zeros there.

    >>> look = pd.DataFrame({"item_id": [1, 2], "vector": [[3.0, 4.0], [1.0, 0.0]]})
    >>> sound = pd.DataFrame({"item_id": [1], "vector": [[2.0]]})
    >>> print(np.stack(side_by_side({"look": look, "sound": sound})["vector"]))
    [[0.6 0.8 1. ]
     [1.  0.  0. ]]
    """
    present = [frame for frame in features.values() if len(frame)]
    if not present:
        return None
    index = pd.Index(pd.concat([frame[c.ITEM_ID] for frame in present]).unique())
    vectors = np.concatenate([_unit_vectors(index, frame) for frame in present], axis=1)
    return pd.DataFrame({c.ITEM_ID: index, c.VECTOR: list(vectors)})


def _counts(positions: NDArray[np.integer[Any]], n: int) -> NDArray[np.int64]:
    return np.bincount(positions, minlength=n).astype(np.int64)


def _unit_vectors(index: pd.Index[Any], frame: pd.DataFrame) -> NDArray[np.float32]:
    widths = {len(vector) for vector in frame[c.VECTOR]}
    if len(widths) != 1:
        raise DataError(
            f"The item vectors have different widths ({', '.join(map(str, sorted(widths))) or 'no rows'}).",
            "Use the vectors of one encoder and version.",
        )
    rows = np.stack(list(frame[c.VECTOR])).astype(np.float32)
    if not np.isfinite(rows).all():
        raise DataError("Some item vectors hold NaN or infinite values.", "Leave such items out, or encode anew.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.zeros((len(index), rows.shape[1]), np.float32)
    values[index.get_indexer(pd.Index(frame[c.ITEM_ID]))] = rows / np.where(lengths > 0, lengths, 1.0)
    return values


def _shares(index: pd.Index[Any], frame: pd.DataFrame) -> csr_matrix:
    as_lists = frame[c.CATEGORIES].map(lambda value: value if isinstance(value, list | tuple | np.ndarray) else [value])
    pairs = frame[[c.ITEM_ID]].assign(**{c.CATEGORIES: as_lists}).explode(c.CATEGORIES).dropna().drop_duplicates()
    rows, (columns, labels) = index.get_indexer(pd.Index(pairs[c.ITEM_ID])), pd.factorize(pairs[c.CATEGORIES])
    weights = 1.0 / np.maximum(np.bincount(rows, minlength=len(index)), 1)[rows]
    return csr_matrix((weights, (rows, columns)), shape=(len(index), max(len(labels), 1)))


def _labels(index: pd.Index[Any], frame: pd.DataFrame) -> NDArray[np.object_]:
    pairs = frame[[c.ITEM_ID, c.GROUP]].dropna().drop_duplicates()
    twice = pairs.loc[pairs[c.ITEM_ID].duplicated(), c.ITEM_ID]
    if len(twice):
        raise DataError(
            f"{twice.nunique()} items have more than one group, the first is {twice.iloc[0]!r}.",
            "Give each item one group, e.g. its creator.",
        )
    labels = np.full(len(index), None, np.object_)
    labels[index.get_indexer(pd.Index(pairs[c.ITEM_ID]))] = pairs[c.GROUP].to_numpy()
    return labels
