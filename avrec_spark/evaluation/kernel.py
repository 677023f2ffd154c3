"""The ranking kernel: blocks of whole users go in, sums come out. Both executors run this and nothing else.

A block's memory is that of its users; what stays between blocks is of the size of the catalogue, so that the number of
users does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.errors import DataError, UsageError
from avrec_spark.evaluation import exposure, metrics
from avrec_spark.evaluation.beyond import BeyondAccuracy
from avrec_spark.evaluation.bootstrap import Metrics, Sums, figures, points
from avrec_spark.evaluation.catalogue import Catalogue
from avrec_spark.evaluation.segments import COLD_ITEMS, WARM_ITEMS

# In the place of a rank: what else a row can be.
HELD_OUT, HISTORY, SEGMENT = -1, -2, -3
# Rows of a block, so that it stays within the processor's caches and some tens of megabytes.
BLOCK_ROWS = 2**18


@dataclass(frozen=True)
class Plan:
    """What to measure: list lengths, bootstrap samples, what is known of the items, whether histories will come."""

    ks: tuple[int, ...]
    samples: int = 0
    catalogue: Catalogue | None = None
    histories: bool = False

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or self.samples < 0:
            raise UsageError(
                f"The list lengths are {', '.join(map(str, self.ks)) or 'none'}, the bootstrap samples {self.samples}.",
                "Give lengths of 1 or more, e.g. 10, and 0 samples or more.",
            )

    @property
    def names(self) -> list[str]:
        """The means over users, in order.

        >>> Plan((5,)).names[:3]
        ['ndcg@5', 'precision@5', 'recall@5']
        """
        beyond = [] if self.catalogue is None else BeyondAccuracy(self.catalogue, self.histories).names
        return [f"{metric}@{k}" for k in self.ks for metric in (*metrics.PER_USER, *beyond)]

    @property
    def groups(self) -> NDArray[np.object_] | None:
        return None if self.catalogue is None else self.catalogue.groups


@dataclass(frozen=True)
class Block:
    """All rows of some users. `users` are ids[u]; `user` int64[n] are positions in them, `item` ids[n], and `rank`
    int64[n] is a rank from 1, HELD_OUT or HISTORY. `segments` object[u] is the segment of each user."""

    users: NDArray[Any]
    user: NDArray[np.int64]
    item: NDArray[Any]
    rank: NDArray[np.int64]
    segments: NDArray[np.object_] | None = None


class Evaluation:
    """Adds up blocks of whole users; evaluations of other users are added to it.

    >>> one = Evaluation(Plan(ks=(2,)))
    >>> one.add(Block(np.array(["ann"]), np.zeros(3, int), np.array([7, 8, 8]), np.array([1, 2, HELD_OUT])))
    >>> figures = one.finish(n_items=4)
    >>> [figures[name]["mean"] for name in ("mrr@2", "coverage@2")]
    [0.5, 0.5]
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._names = plan.names
        about = plan.catalogue
        self._beyond = None if about is None else BeyondAccuracy(about, plan.histories)
        self.items = ItemPositions(np.array([]) if about is None else about.ids)
        # Of all users under None, and of each segment's.
        self.sums: dict[str | None, Sums] = {}
        # For each k how often each item was shown and, with groups, its exposure.
        self.shown = np.zeros((0, self.columns))

    @property
    def columns(self) -> int:
        return len(self.plan.ks) * (1 if self.plan.groups is None else 2)

    def add(self, block: Block) -> None:
        """Measure a block. Raises `DataError` for missing ids, ranks below 1, and items or ranks that come twice."""
        rows = _Rows.of(block, self.items)
        if len(rows.users) == 0:
            return
        shown, hits = rows.lists(max(self.plan.ks))
        values = self._values(rows, shown, hits)
        overall = Sums.of_means(rows.users, values, self.plan.samples)
        self._add_sums(None, overall)
        if rows.segments is not None:
            for segment in pd.unique(rows.segments[~pd.isna(rows.segments)]):
                chosen = rows.segments == segment
                self._add_sums(str(segment), Sums.of_means(rows.users[chosen], values[chosen], self.plan.samples))
        if self.plan.catalogue is not None and self.plan.catalogue.train_users is not None:
            self._add_item_segments(rows, shown, hits, overall)

    def measure(self, block: Block) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
        """(users, values float64[users, names]) of the users with held-out items; None where there are none.

        Their lists are added to the exposure.
        """
        rows = _Rows.of(block, self.items)
        if len(rows.users) == 0:
            return None
        return rows.users, self._values(rows, *rows.lists(max(self.plan.ks)))

    def _values(self, rows: _Rows, shown: NDArray[np.int64], hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        history = rows.history(len(self.items.known)) if self.plan.histories else None
        columns = []
        for k in self.plan.ks:
            values = metrics.per_user(hits, rows.relevant, k)
            if self._beyond is not None:
                values |= self._beyond.measure(shown, hits, history, k)
            columns += list(values.values())
        self._expose(shown)
        return np.stack(columns, axis=1)

    def _add_item_segments(self, rows: _Rows, shown: NDArray[np.int64], hits: NDArray[np.bool_], overall: Sums) -> None:
        """Accuracy on the held-out items that train knows, and on those that it does not; other columns say nothing."""
        assert self.plan.catalogue is not None
        assert self.plan.catalogue.train_users is not None
        warm = np.zeros(rows.n_items, np.bool_)
        warm[: len(self.items.known)] = self.plan.catalogue.train_users > 0
        is_warm = warm[rows.held_out % rows.n_items]
        if is_warm.all():
            # Most blocks are: what has been summed need not be summed again.
            self._add_sums(WARM_ITEMS, overall)
            return
        accuracy = np.isin([name.partition("@")[0] for name in self._names], metrics.PER_USER)
        for segment, held_out, hit in (
            (WARM_ITEMS, rows.held_out[is_warm], hits & warm[shown]),
            (COLD_ITEMS, rows.held_out[~is_warm], hits & ~warm[shown]),
        ):
            relevant = np.bincount(held_out // rows.n_items, minlength=len(rows.users))
            some = relevant > 0
            if not some.any():
                continue
            values = np.full((np.count_nonzero(some), len(self._names)), np.nan)
            of_each_k = [metrics.per_user(hit[some], relevant[some], k).values() for k in self.plan.ks]
            values[:, accuracy] = np.stack([column for columns in of_each_k for column in columns], axis=1)
            self._add_sums(segment, Sums.of_means(rows.users[some], values, self.plan.samples))

    def _expose(self, shown: NDArray[np.int64]) -> None:
        grown = np.zeros((len(self.items), self.columns))
        grown[: len(self.shown)] = self.shown
        for n, k in enumerate(self.plan.ks):
            users, ranks = np.nonzero(shown[:, :k] >= 0)
            positions, codes = np.unique(shown[users, ranks], return_inverse=True)
            grown[positions, n] += np.bincount(codes, minlength=len(positions))
            if self.plan.groups is not None:
                weights = 1.0 / np.log2(ranks + 2)
                grown[positions, len(self.plan.ks) + n] += np.bincount(codes, weights, minlength=len(positions))
        self.shown = grown

    def _add_sums(self, segment: str | None, sums: Sums) -> None:
        self.sums[segment] = self.sums[segment] + sums if segment in self.sums else sums

    def add_part(
        self, sums: dict[str | None, Sums], items: NDArray[Any] | None = None, shown: NDArray[np.float64] | None = None
    ) -> None:
        """Add what evaluations of other users have found: their sums, and their items with how often each was shown."""
        for segment, part in sums.items():
            self._add_sums(segment, part)
        if items is not None and shown is not None and len(items):
            positions = self.items.of(items)
            grown = np.zeros((len(self.items), self.columns))
            grown[: len(self.shown)] = self.shown
            np.add.at(grown, positions, shown)
            self.shown = grown

    def finish(self, n_items: int) -> Metrics:
        """The figures over a catalogue of `n_items`.

        A segment's stand under `NAME/SEGMENT`. Where the catalogue says that train knows only some of the held-out
        items, the segments warm-items and cold-items have the accuracy on either. Raises `DataError` where there was
        nothing to evaluate on, or the lists show more items than the catalogue has.
        """
        if None not in self.sums:
            raise DataError(
                "There is no held-out interaction to evaluate on.", "Check the split: every part needs rows."
            )
        seen = int((self.shown[:, : len(self.plan.ks)] > 0).any(axis=1).sum())
        if seen > n_items:
            raise DataError(
                f"The lists show {seen} different items, and the catalogue is said to have {n_items}.",
                "Give the number of all items that the model ranks.",
            )
        result = figures(self._names, self.sums[None].means())
        for n, k in enumerate(self.plan.ks):
            result |= points(exposure.of_items(self.shown[:, n], k, n_items))
            if self.plan.groups is not None:
                result |= points(self._between_groups(self.shown[:, len(self.plan.ks) + n], k))
        for segment in self._segments():
            named = figures([f"{name}/{segment}" for name in self._names], self.sums[segment].means())
            if segment in (WARM_ITEMS, COLD_ITEMS):
                named = {name: one for name, one in named.items() if name.partition("@")[0] in metrics.PER_USER}
            result |= named
        return result

    def _segments(self) -> list[str]:
        """Names in order; held-out items of one kind only are no segment."""
        found = {name for name in self.sums if name is not None}
        kinds = {WARM_ITEMS, COLD_ITEMS}
        return sorted(found if kinds <= found else found - kinds)

    def _between_groups(self, amounts: NDArray[np.float64], k: int) -> dict[str, float]:
        labels = pd.Series(self.plan.groups)
        held = np.zeros(len(labels))
        known = min(len(amounts), len(labels))
        held[:known] = amounts[:known]
        return exposure.of_groups(pd.Series(held).groupby(labels).sum(), labels.value_counts().sort_index(), k)


class ItemPositions:
    """Positions of item ids: those of the catalogue first, others as they come."""

    def __init__(self, ids: NDArray[Any]) -> None:
        self.known = ids
        self.index = pd.Index(ids)

    def __len__(self) -> int:
        return len(self.index)

    def of(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """int64[n] for distinct ids."""
        positions = self.index.get_indexer(pd.Index(ids))
        new = positions < 0
        if new.any():
            added = pd.Index(ids[new])
            positions[new] = np.arange(new.sum()) + len(self.index)
            self.index = self.index.append(added) if len(self.index) else added
        return np.asarray(positions, np.int64)


@dataclass(frozen=True)
class _Rows:
    """A block's rows of the users that have held-out items, with items as positions."""

    users: NDArray[Any]
    relevant: NDArray[np.int64]
    segments: NDArray[np.object_] | None
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rank: NDArray[np.int64]
    held_out: NDArray[np.int64] = field(repr=False)
    n_items: int = 0

    @classmethod
    def of(cls, block: Block, items: ItemPositions) -> _Rows:
        if pd.isna(block.users).any():
            raise _missing_ids(c.USER_ID)
        codes, distinct = pd.factorize(block.item)
        if (codes < 0).any():
            raise _missing_ids(c.ITEM_ID)
        positions = items.of(distinct)
        n_items = len(items)
        held_out = pd.unique((block.user * n_items + positions[codes])[block.rank == HELD_OUT])
        counts = np.bincount(held_out // n_items, minlength=len(block.users)) if n_items else np.zeros(0, np.int64)
        kept = counts > 0
        moved = np.cumsum(kept) - 1
        rows = kept[block.user]
        return cls(
            users=block.users[kept],
            relevant=counts[kept].astype(np.int64),
            segments=None if block.segments is None else block.segments[kept],
            user=moved[block.user[rows]],
            item=positions[codes[rows]],
            rank=block.rank[rows],
            held_out=moved[held_out // max(n_items, 1)] * n_items + held_out % max(n_items, 1),
            n_items=n_items,
        )

    def lists(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(shown int64[users, width] with −1 for places that are not filled, hits bool[users, width])."""
        if ((self.rank < 1) & (self.rank != HELD_OUT) & (self.rank != HISTORY)).any():
            raise DataError("Some ranks are below 1, or no whole numbers.", "Count ranks from 1.")
        chosen = (self.rank >= 1) & (self.rank <= width)
        user, item, rank = self.user[chosen], self.item[chosen], self.rank[chosen]
        shown = np.full((len(self.users), width), -1, np.int64)
        shown[user, rank - 1] = item
        keys = user * self.n_items + item
        if np.count_nonzero(shown >= 0) < len(keys) or len(pd.unique(keys)) < len(keys):
            raise DataError(
                "Some lists have an item or a rank twice.", "Give each user each item at one rank, and one item a rank."
            )
        hits = np.zeros(shown.shape, np.bool_)
        hits[user, rank - 1] = pd.Series(keys).isin(self.held_out).to_numpy()
        return shown, hits

    def history(self, n_known: int) -> csr_matrix:
        """users × items of the catalogue, 1 where the user's history has the item."""
        chosen = (self.rank == HISTORY) & (self.item < n_known)
        keys = np.sort(pd.unique(self.user[chosen] * max(n_known, 1) + self.item[chosen]))
        pairs = keys // max(n_known, 1), keys % max(n_known, 1)
        return csr_matrix((np.ones(len(keys)), pairs), shape=(len(self.users), n_known))


def _missing_ids(name: str) -> DataError:
    return DataError(f"Some rows have no {name}.", "Leave rows without an id out.")
