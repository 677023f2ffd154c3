"""Dense integers for ids, in an order that says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark.errors import DataError


class IdIndex:
    """Positions for ids, shuffled by a seed.

    Catalogues often number items by age or popularity; a shuffled index keeps any model from reading that, and makes
    "ties are broken by position" mean "at random, but always in the same way".

    >>> index = IdIndex.from_ids(["b", "a", "b"], seed=0)
    >>> index.decode(index.encode(["a", "b"])).tolist()
    ['a', 'b']
    >>> index.encode(["c"]).tolist()
    [-1]
    """

    def __init__(self, ids: NDArray[Any]) -> None:
        # Integers that came as Python objects become integers again; strings are objects, however they came.
        self.ids: NDArray[Any] = pd.Series(ids).infer_objects().to_numpy()
        self._lookup = pd.Index(ids)

    @classmethod
    def from_ids(cls, ids: Iterable[Any], seed: int) -> IdIndex:
        """An index of the distinct ids; the same ids and seed give the same index, whatever their order.

        Raises `DataError` where ids are missing, or some are numbers and some are text.
        """
        values = _index(ids)
        _require_one_type(values)
        return cls(np.random.default_rng(seed).permutation(np.sort(values.unique().to_numpy())))

    def extended(self, ids: NDArray[Any]) -> IdIndex:
        """With further ids behind those it has, which keep their positions. Raises `DataError` as `from_ids` does.

        >>> IdIndex(np.array([7, 5])).extended(np.array([6])).ids.tolist()
        [7, 5, 6]
        """
        if len(ids) == 0:
            return self
        values = _index(self.ids).append(_index(ids)) if len(self.ids) else _index(ids)
        _require_one_type(values)
        return IdIndex(values.to_numpy())

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, ids: Iterable[Any]) -> NDArray[np.int64]:
        """Positions of ids, -1 where an id is unknown."""
        return np.asarray(self._lookup.get_indexer(_index(ids)), np.int64)

    def decode(self, positions: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Ids at positions."""
        return np.asarray(self.ids[positions])


def _require_one_type(ids: pd.Index[Any]) -> None:
    if ids.hasnans or ids.inferred_type.startswith("mixed"):
        raise DataError(
            f"Some ids are missing, or they are not all of one type ({ids.inferred_type}).",
            "Leave rows without an id out, and give all ids of a column as numbers, or all as text.",
        )


def _index(ids: Iterable[Any]) -> pd.Index[Any]:
    return pd.Index(ids if isinstance(ids, np.ndarray | pd.Series | pd.Index) else list(ids))
