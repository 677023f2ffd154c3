"""Splits: pure functions from rows to train, validation and test.

| kind | what is test (validation comes before it, or is drawn like it) | equal times |
|---|---|---|
| time | each user's latest share of items | by a hash of the keys |
| random, random-item | a random share of each user's items, or of each item's users | |
| last-out | each user's last n rows | by a hash of the keys, or by the column `row` |
| global-time | everything from one moment on | all of a moment go to one part |
| cold-item, cold-user | all rows of a random share of the items, or users | |
| k-fold | one of k equal parts of each user's rows; the next part is validation | |

A split that is defined by file order reads the explicit column `row`; the others ignore row order. "Random" is a hash
of the keys as text and the seed, so that the same rows give the same parts in pandas and in Spark
(`avrec_spark.pipelines.splitting`), in any order, and with ids as numbers or as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Fewer rows, and holding some out would leave nothing to learn from. As many distinct times or keys make three parts.
MIN_ROWS = 3

Kind = Literal["time", "random", "random-item", "last-out", "global-time", "cold-item", "cold-user", "k-fold"]
_GROUPS = {
    **dict.fromkeys(("time", "random", "last-out", "k-fold"), c.USER_ID),
    "random-item": c.ITEM_ID,
}
_PAIR = [c.USER_ID, c.ITEM_ID]
KEYS = {"cold-item": c.ITEM_ID, "cold-user": c.USER_ID}


@dataclass(frozen=True)
class Split:
    """A split by its name, with what any of them needs; called with rows it adds the column `split`.

    `last_n` is for last-out, `folds` and `fold` for k-fold, the shares for the others.

    >>> pairs = pd.DataFrame({"user_id": 1, "item_id": list("abcde"), "timestamp": [5, 4, 3, 2, 1]})
    >>> Split("last-out")(pairs)["split"].tolist()
    ['test', 'validation', 'train', 'train', 'train']
    """

    kind: Kind = "time"
    validation_share: float = 0.1
    test_share: float = 0.2
    last_n: int = 1
    folds: int = 5
    fold: int = 0
    seed: int = 42

    @property
    def group(self) -> str | None:
        """Rows with one value of this column decide among themselves; None where all rows do."""
        return _GROUPS.get(self.kind)

    def __call__(self, pairs: pd.DataFrame) -> pd.DataFrame:
        shares = self.validation_share, self.test_share
        match self.kind:
            case "time":
                return split_groups(pairs, *shares, by="time", seed=self.seed)
            case "random" | "random-item":
                return split_groups(pairs, *shares, group=_GROUPS[self.kind], by="random", seed=self.seed)
            case "last-out":
                return leave_last_out(pairs, self.last_n, self.last_n, seed=self.seed)
            case "global-time":
                times = pairs[c.TIMESTAMP].value_counts()
                return split_at(pairs, *time_cuts(times.index.to_series(), times, *shares))
            case "cold-item" | "cold-user":
                key = KEYS[self.kind]
                parts = split_keys(pd.Series(pairs[key].unique()), *shares, seed=self.seed)
                return pairs.assign(**{c.SPLIT: pairs[key].map(parts)})
            case "k-fold":
                return split_fold(pairs, self.folds, self.fold, seed=self.seed)


# -- whole users, or whole items, at once ------------------------------------------------------------------------------


def split_groups(
    pairs: pd.DataFrame,
    validation_share: float,
    test_share: float,
    group: str = c.USER_ID,
    by: Literal["time", "random"] = "time",
    seed: int = 42,
) -> pd.DataFrame:
    """Adds the column `split`: of each user's rows the latest (or random ones) are test, the next validation.

    `pairs` has one row a user and item with user_id, item_id, timestamp, and holds whole groups: users, or items where
    `group` says so. A group with fewer than 3 rows stays in train; any other has at least one row in each part.

    >>> pairs = pd.DataFrame({"user_id": 1, "item_id": list("abcde"), "timestamp": [5, 4, 3, 2, 1]})
    >>> split_groups(pairs, 0.2, 0.2)["split"].tolist()
    ['test', 'validation', 'train', 'train', 'train']
    """
    order = pairs[c.TIMESTAMP].to_numpy() if by == "time" else np.zeros(len(pairs))
    position, count = _from_last(pairs[group], order, _hash(pairs[_PAIR], seed))

    def held_out(share: float) -> NDArray[np.int64]:
        return np.where(count >= MIN_ROWS, np.maximum(1, np.floor(count * share)), 0).astype(np.int64)

    return _last_are_test(pairs, position, held_out(validation_share), held_out(test_share))


def leave_last_out(
    pairs: pd.DataFrame, test: int = 1, validation: int = 1, ties: Literal["hash", "row"] = "hash", seed: int = 42
) -> pd.DataFrame:
    """Adds the column `split`: each user's last `test` rows are test, the `validation` rows before them validation.

    Of rows with equal times the later in the file counts as later (`ties="row"`), or the one with the higher hash. A
    user with no more than test + validation rows stays in train.

    >>> rows = pd.DataFrame({"user_id": 1, "item_id": [7, 8, 9], "timestamp": 0, "row": [2, 0, 1]})
    >>> leave_last_out(rows, ties="row")["split"].tolist()
    ['test', 'train', 'validation']
    """
    tie = pairs[c.ROW].to_numpy() if ties == "row" else _hash(pairs[_PAIR], seed)
    position, count = _from_last(pairs[c.USER_ID], pairs[c.TIMESTAMP].to_numpy(), tie)
    enough = count > test + validation
    return _last_are_test(pairs, position, enough * validation, enough * test)


def split_fold(pairs: pd.DataFrame, folds: int = 5, fold: int = 0, seed: int = 42) -> pd.DataFrame:
    """Adds the column `split`: rows of the fold are test, those of the next one (cyclically) validation.

    Each user's rows are dealt to the folds in turn, in the order of a hash, the first to a fold that differs from user
    to user: every row is test once, and a user's rows in two folds differ by at most one.
    """
    if not (folds >= MIN_ROWS and 0 <= fold < folds):
        raise DataError(f"There is no fold {fold} of {folds}.", "Take 3 folds or more, and count them from 0.")
    position, _ = _from_last(pairs[c.USER_ID], np.zeros(len(pairs)), _hash(pairs[_PAIR], seed))
    first = _hash(pairs[[c.USER_ID]], seed) % np.uint64(folds)
    dealt = (position + first.astype(np.int64)) % folds
    split = np.where(dealt == fold, TEST, np.where(dealt == (fold + 1) % folds, VALIDATION, TRAIN))
    return pairs.assign(**{c.SPLIT: split})


def _from_last(group: pd.Series[Any], order: NDArray[Any], tie: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each row its place in its group counted from the last (0), and the group's size."""
    keyed = pd.DataFrame({"group": group.to_numpy(), "order": order, "tie": tie})
    groups = keyed.sort_values(["order", "tie"], ascending=False).groupby("group", sort=False)
    position, count = groups.cumcount(), groups["tie"].transform("size")
    return position.sort_index().to_numpy(), count.sort_index().to_numpy()


def _last_are_test(
    pairs: pd.DataFrame, position: NDArray[Any], validation: NDArray[Any], test: NDArray[Any]
) -> pd.DataFrame:
    split = np.where(position < test, TEST, np.where(position < test + validation, VALIDATION, TRAIN))
    return pairs.assign(**{c.SPLIT: split})


# -- all rows at once --------------------------------------------------------------------------------------------------


def time_cuts(
    times: pd.Series[Any], counts: pd.Series[Any], validation_share: float, test_share: float
) -> tuple[Any, Any]:
    """The first times of validation and of test, given the distinct times and how many rows have each.

    Of all cuts that leave no part empty, those that come nearest to the shares; of two as near, the earlier. Raises
    `DataError` where there are fewer than 3 distinct times.

    >>> time_cuts(pd.Series([1, 2, 3, 4]), pd.Series([6, 2, 1, 1]), 0.2, 0.2)
    (2, 3)
    """
    if len(times) < MIN_ROWS:
        raise DataError(
            f"The rows have {len(times)} distinct times, and a split by time needs {MIN_ROWS}.",
            "Give timestamps, or choose another split, for example random.",
        )
    order = np.argsort(times.to_numpy(), kind="stable")
    ordered, rows = times.to_numpy()[order], counts.to_numpy()[order]
    before = rows.cumsum() - rows

    def nearest(share: float, low: int, high: int) -> int:
        return low + int(np.abs(before[low:high] - share * rows.sum()).argmin())

    test = nearest(1 - test_share, 2, len(ordered))
    validation = nearest(1 - test_share - validation_share, 1, test)
    return ordered[validation], ordered[test]


def split_at(pairs: pd.DataFrame, validation_from: Any, test_from: Any) -> pd.DataFrame:
    """Adds the column `split`: rows from `test_from` on are test, those between the two times validation."""
    times = pairs[c.TIMESTAMP]
    split = np.where(times >= test_from, TEST, np.where(times >= validation_from, VALIDATION, TRAIN))
    return pairs.assign(**{c.SPLIT: split})


def split_keys(keys: pd.Series[Any], validation_share: float, test_share: float, seed: int = 42) -> pd.Series[str]:
    """The part of each of the distinct keys, indexed by key: a random share of the keys is test, another validation.

    Each part has at least one. Raises `DataError` where there are fewer than 3 keys.

    >>> split_keys(pd.Series(range(10)), 0.1, 0.2).value_counts().to_dict()
    {'train': 7, 'test': 2, 'validation': 1}
    """
    if len(keys) < MIN_ROWS:
        raise DataError(
            f"There are {len(keys)} keys to divide, and three parts need {MIN_ROWS}.",
            "Choose another split, for example time or random.",
        )
    tie = _hash(keys.to_frame(), seed)
    test, validation = (max(1, int(len(keys) * share)) for share in (test_share, validation_share))
    parts = np.repeat([TEST, VALIDATION, TRAIN], [test, validation, len(keys) - test - validation])
    return pd.Series(parts, index=keys.to_numpy()[np.argsort(tie, kind="stable")], name=c.SPLIT)


# -- in the order of a file --------------------------------------------------------------------------------------------


def stratified_split(
    interactions: pd.DataFrame, ratio: float = 0.75, by: str = c.ITEM_ID, seed: int = 42
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test): within each item (or user) a random `ratio` of the rows is train.

    The protocol of LF Recommenders' `python_stratified_split`: one number a row from `RandomState(seed).rand`, drawn
    in file order (column `row`); of each group the round(ratio × n) lowest are train.
    """
    rows = interactions.sort_values(c.ROW, ignore_index=True)
    is_train = lowest(rows[by], np.random.RandomState(seed).rand(len(rows)), ratio)
    return rows[is_train].reset_index(drop=True), rows[~is_train].reset_index(drop=True)


def lowest(group: pd.Series[Any], draws: NDArray[np.float64], ratio: float) -> NDArray[np.bool_]:
    """Whether a row is among the round(ratio × n) of its group's n rows that drew the lowest numbers."""
    keyed = pd.DataFrame({"group": group.to_numpy(), "draw": draws})
    groups = keyed.sort_values("draw", kind="stable").groupby("group", sort=False)
    rank, count = groups.cumcount() + 1, groups["draw"].transform("size")
    return np.asarray((rank <= np.round(ratio * count)).sort_index(), np.bool_)


def _hash(ids: pd.DataFrame, seed: int) -> NDArray[np.uint64]:
    """uint64 a row from all its ids, as text, and the seed."""
    # As categories, so that each distinct id becomes text and is hashed once.
    texts = {name: _as_texts(ids[name]) for name in ids}
    hashes = pd.util.hash_pandas_object(pd.DataFrame(texts, index=ids.index).assign(seed=seed), index=False)
    return np.asarray(hashes, np.uint64)


def _as_texts(ids: pd.Series[Any]) -> pd.Categorical:
    codes, distinct = pd.factorize(ids)
    return pd.Categorical.from_codes(codes, pd.Index(distinct).astype(str))
