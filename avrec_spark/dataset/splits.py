"""Splits: pure functions from rows to train, validation and test.

A split that is defined by file order reads the explicit column `row`; the others ignore row order and break ties by a
hash of the keys, so that pandas and Spark give the same rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from avrec_spark import columns as c

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Fewer items, and holding some out would leave nothing to learn from.
MIN_ITEMS = 3


def split_users(
    pairs: pd.DataFrame,
    validation_share: float,
    test_share: float,
    by: Literal["time", "random"] = "time",
    seed: int = 42,
) -> pd.DataFrame:
    """Adds the column `split`: of each user's items the latest (or random ones) are test, the next validation.

    `pairs` has one row a user and item with user_id, item_id, timestamp, and holds whole users. A user with fewer
    than 3 items stays in train; any other has at least one item in each part.

    >>> pairs = pd.DataFrame({"user_id": 1, "item_id": list("abcde"), "timestamp": [5, 4, 3, 2, 1]})
    >>> split_users(pairs, 0.2, 0.2)["split"].tolist()
    ['test', 'validation', 'train', 'train', 'train']
    """
    index, pairs = pairs.index, pairs.reset_index(drop=True)
    tie = pd.util.hash_pandas_object(pairs[[c.USER_ID, c.ITEM_ID]].astype(str).assign(seed=seed), index=False)
    order = pairs[c.TIMESTAMP] if by == "time" else 0
    keyed = pd.DataFrame({c.USER_ID: pairs[c.USER_ID], "order": order, "tie": tie})
    users = keyed.sort_values(["order", "tie"], ascending=False).groupby(c.USER_ID, sort=False)
    position = users.cumcount().sort_index().to_numpy()
    count = users["tie"].transform("size").sort_index().to_numpy()

    def held_out(share: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.where(count >= MIN_ITEMS, np.maximum(1, np.floor(count * share)), 0).astype(np.int64)

    test, validation = held_out(test_share), held_out(validation_share)
    split = np.where(position < test, TEST, np.where(position < test + validation, VALIDATION, TRAIN))
    return pairs.assign(**{c.SPLIT: split}).set_axis(index)


def stratified_split(
    interactions: pd.DataFrame, ratio: float = 0.75, by: str = c.ITEM_ID, seed: int = 42
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test): within each item (or user) a random `ratio` of the rows is train.

    The protocol of LF Recommenders' `python_stratified_split`: one number a row from `RandomState(seed).rand`, drawn
    in file order (column `row`); of each group the round(ratio × n) lowest are train.
    """
    rows = interactions.sort_values(c.ROW, ignore_index=True)
    draw = np.random.RandomState(seed).rand(len(rows))
    ordered = rows.iloc[np.argsort(draw, kind="stable")]
    rank = ordered.groupby(by).cumcount() + 1
    count = ordered.groupby(by)[by].transform("size")
    is_train = (rank <= np.round(ratio * count)).reindex(rows.index)
    return rows[is_train].reset_index(drop=True), rows[~is_train].reset_index(drop=True)
