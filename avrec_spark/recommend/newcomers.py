"""Users of whom little is known: the tastes that they declare, and the users that they are like."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.errors import DataError
from avrec_spark.recommend.topk import ScoreSource, top_k, unit


def histories_of_tags(item_tags: pd.DataFrame, declared: Sequence[Collection[str]], most: int = 20) -> list[list[Any]]:
    """For each newcomer the items that stand for the tags they declare, for `Recommender.recommend_for_history`.

    `item_tags` has item_id and tags (lists). They are the `most` items with the most of the declared tags, of equal
    ones those that come first in the frame: sort it by popularity. None for tags that no item has. Call with
    `filter_seen=False`: a newcomer has seen none of them.

    >>> item_tags = pd.DataFrame({"item_id": [1, 2, 3], "tags": [["jazz"], ["jazz", "live"], ["news"]]})
    >>> histories_of_tags(item_tags, [{"jazz", "live"}, {"opera"}])
    [[2, 1], []]
    """
    pairs = item_tags[[c.ITEM_ID, c.TAGS]].explode(c.TAGS).dropna()
    item, ids = pd.factorize(pairs[c.ITEM_ID].to_numpy())
    of_tag = pairs[c.TAGS].to_numpy()
    found = []
    for tags in declared:
        shared = np.bincount(item[np.isin(of_tag, list(tags))], minlength=len(ids))
        first = np.argsort(-shared, kind="stable")[:most]
        found.append(ids[first[shared[first] > 0]].tolist())
    return found


def similar_users(known: NDArray[Any], newcomers: NDArray[Any], n: int = 50) -> csr_matrix:
    """float32[newcomers, known]: the n known users nearest to each newcomer, weighed by cosine; rows sum to 1, or to 0
    where nobody is near. For `Recommender.recommend_as`.

    `known` [n_users, d] and `newcomers` [m, d] are vectors of one kind: attributes as numbers (age, one 0 or 1 a
    region, …) with rows of `known` as in the model's `users`, or users' vectors (`Fusion.user_vectors`, and the left
    side of the model's score source). Raises `DataError` for other widths and for NaN.

    >>> known = np.array([[1, 0], [1, 0.1], [0, 1]])
    >>> similar_users(known, np.array([[2.0, 0.0], [0.0, 0.0]]), n=2).toarray().round(1).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    known, newcomers = np.asarray(known, np.float32), np.asarray(newcomers, np.float32)
    if known.ndim != 2 or newcomers.ndim != 2 or known.shape[1] != newcomers.shape[1]:
        raise DataError(
            f"Known users have vectors of the shape {known.shape}, newcomers of {newcomers.shape}.",
            "Describe both by the same attributes.",
        )
    if not (np.isfinite(known).all() and np.isfinite(newcomers).all()):
        raise DataError("Some users' vectors hold NaN or infinite values.", "Fill them in, or leave such users out.")
    right = np.ascontiguousarray(unit(known).T)
    users, cosine = top_k([ScoreSource(unit(newcomers), right)], np.arange(len(newcomers)), n)
    row, place = np.nonzero((users >= 0) & (cosine > 0))
    weights = csr_matrix((cosine[row, place], (row, users[row, place])), shape=(len(newcomers), len(known)))
    total = np.maximum(np.asarray(weights.sum(axis=1)), 1e-12)
    return csr_matrix(weights.multiply(1 / total), dtype=np.float32)
