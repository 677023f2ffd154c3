"""Two ways to run the ranking kernel: in this process on pandas, and in Spark; the figures are the same.

Inputs are frames: `lists` user_id, item_id, rank (from 1); `truth`, the held-out pairs user_id, item_id; optionally
`histories`, the train pairs user_id, item_id, and `segments` user_id, segment. What is known of the items comes as a
`Catalogue`. A metric that needs an input is computed where the input is given; docs/evaluation.md lists them all.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.errors import AvrecError, DataError, MissingColumnsError, SettingsError
from avrec_spark.evaluation.bootstrap import Metrics, Sums
from avrec_spark.evaluation.catalogue import Catalogue
from avrec_spark.evaluation.kernel import BLOCK_ROWS, HELD_OUT, HISTORY, SEGMENT, Block, Evaluation, Plan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = [
    "Metrics",
    "create",
    "evaluate_numpy",
    "evaluate_parts",
    "evaluate_spark",
    "per_user_numpy",
    "per_user_spark",
]

_PAIR = (c.USER_ID, c.ITEM_ID)
_ITEMS_A_BATCH = 10_000


def create(name: str) -> Callable[..., Metrics]:
    """`evaluate_numpy` or `evaluate_spark` by name."""
    executors: dict[str, Callable[..., Metrics]] = {"numpy": evaluate_numpy, "spark": evaluate_spark}
    if name not in executors:
        raise SettingsError(f"There is no executor {name}.", "Choose numpy or spark.")
    return executors[name]


# -- numpy -----------------------------------------------------------------------------------------------------------


def evaluate_numpy(
    lists: pd.DataFrame,
    truth: pd.DataFrame,
    ks: tuple[int, ...],
    n_items: int,
    bootstrap: int = 200,
    catalogue: Catalogue | None = None,
    histories: pd.DataFrame | None = None,
    segments: pd.DataFrame | None = None,
) -> Metrics:
    """Metrics of ranked lists against held-out pairs; `n_items` is the size of the catalogue that was ranked.

    `bootstrap` is the number of samples for the intervals; 0: none. Raises `DataError` without held-out pairs, for
    missing ids, ids of two types, ranks below 1, an item or a rank twice in a list, and more items than `n_items`.

    >>> lists = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> truth = pd.DataFrame({"user_id": [1], "item_id": [8]})
    >>> figures = evaluate_numpy(lists, truth, (1, 2), n_items=4)
    >>> figures["mrr@2"]["mean"], figures["coverage@1"]["mean"], figures["coverage@2"]["mean"]
    (0.5, 0.25, 0.5)
    """
    part = {"lists": lists, "truth": truth, "histories": histories, "segments": segments}
    return evaluate_parts([part], ks, n_items, bootstrap, catalogue)


def evaluate_parts(
    parts: Iterable[Mapping[str, pd.DataFrame | None]],
    ks: tuple[int, ...],
    n_items: int,
    bootstrap: int = 200,
    catalogue: Catalogue | None = None,
) -> Metrics:
    """`evaluate_numpy` of users that come part by part, e.g. from files: only one part is held at a time.

    Each part has the frames lists and truth, and may have histories and segments, of users that are in no other part.
    """
    evaluation: Evaluation | None = None
    for part in parts:
        frames = {name: part.get(name) for name in ("histories", "segments")}
        if evaluation is None:
            evaluation = Evaluation(Plan(ks, bootstrap, catalogue, frames["histories"] is not None))
        lists, truth = part["lists"], part["truth"]
        assert lists is not None
        assert truth is not None
        for block in _blocks(lists, truth, frames["histories"], frames["segments"], catalogue):
            evaluation.add(block)
    return (evaluation or Evaluation(Plan(ks))).finish(n_items)


def per_user_numpy(
    lists: pd.DataFrame,
    truth: pd.DataFrame,
    ks: tuple[int, ...],
    catalogue: Catalogue | None = None,
    histories: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """user_id and each user's figures, a column a metric, of the users with held-out pairs: for paired comparisons.

    >>> lists = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> per_user_numpy(lists, pd.DataFrame({"user_id": [1, 2], "item_id": [8, 8]}), (2,))["mrr@2"].tolist()
    [0.5, 0.0]
    """
    evaluation = Evaluation(Plan(ks, 0, catalogue, histories is not None))
    parts = [evaluation.measure(block) for block in _blocks(lists, truth, histories, None, catalogue)]
    frames = [
        pd.DataFrame({c.USER_ID: part[0], **dict(zip(evaluation.plan.names, part[1].T, strict=True))})
        for part in parts
        if part is not None
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[c.USER_ID, *evaluation.plan.names])


def _blocks(
    lists: pd.DataFrame,
    truth: pd.DataFrame,
    histories: pd.DataFrame | None,
    segments: pd.DataFrame | None,
    catalogue: Catalogue | None,
) -> Iterator[Block]:
    """Blocks of whole users, in the order of the ids' first appearance in truth."""
    parts = {"lists": lists, "truth": truth, "histories": histories}
    for name, part in parts.items():
        _require(name, None if part is None else part.columns, *_PAIR, *((c.RANK,) if name == "lists" else ()))
    _require("segments", None if segments is None else segments.columns, c.USER_ID, c.SEGMENT)
    given = [part for part in (lists, truth, histories, segments) if part is not None]
    _same_types(c.USER_ID, [part[c.USER_ID] for part in given])
    _same_types(c.ITEM_ID, [part[c.ITEM_ID] for part in given if c.ITEM_ID in part], catalogue)
    if truth[c.USER_ID].isna().any():
        raise DataError(f"Some held-out rows have no {c.USER_ID}.", "Leave rows without an id out.")
    users = pd.Index(truth[c.USER_ID].unique())
    labels = None if segments is None else _segments(users, segments)
    sorted_parts = [
        _Sorted.of(users, lists[c.USER_ID], lists[c.ITEM_ID], _ranks(lists[c.RANK])),
        _Sorted.of(users, truth[c.USER_ID], truth[c.ITEM_ID], HELD_OUT),
        *([] if histories is None else [_Sorted.of(users, histories[c.USER_ID], histories[c.ITEM_ID], HISTORY)]),
    ]
    ends = np.cumsum(sum(np.bincount(part.user, minlength=len(users)) for part in sorted_parts))
    start = 0
    while start < len(users):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + BLOCK_ROWS, side="right")), start + 1)
        taken = [part.between(start, stop) for part in sorted_parts]
        yield Block(
            users=users[start:stop].to_numpy(),
            user=np.concatenate([one.user - start for one in taken]),
            item=np.concatenate([one.item for one in taken]),
            rank=np.concatenate([one.rank for one in taken]),
            segments=None if labels is None else labels[start:stop],
        )
        start = stop


class _Sorted:
    """Rows by the position of their user."""

    def __init__(self, user: NDArray[np.int64], item: NDArray[Any], rank: NDArray[np.int64]) -> None:
        self.user, self.item, self.rank = user, item, rank

    @classmethod
    def of(cls, users: pd.Index, user: pd.Series, item: pd.Series, rank: NDArray[np.int64] | int) -> _Sorted:
        positions = np.asarray(users.get_indexer(pd.Index(user)), np.int64)
        ranks = np.full(len(user), rank, np.int64) if isinstance(rank, int) else rank
        if (positions >= 0).all() and (np.diff(positions) >= 0).all():
            return cls(positions, item.to_numpy(), ranks)
        order = np.argsort(positions, kind="stable")
        # Those of other users come first, at −1.
        order = order[np.count_nonzero(positions < 0) :]
        return cls(positions[order], item.to_numpy()[order], ranks[order])

    def between(self, start: int, stop: int) -> _Sorted:
        rows = slice(*np.searchsorted(self.user, [start, stop]))
        return _Sorted(self.user[rows], self.item[rows], self.rank[rows])


def _ranks(ranks: pd.Series) -> NDArray[np.int64]:
    """Ranks as integers; 0, which the kernel refuses, for what is none."""
    values = pd.to_numeric(ranks, errors="coerce").to_numpy(np.float64)
    return np.where((values >= 1) & (values == np.floor(values)), values, 0).astype(np.int64)


def _segments(users: pd.Index, segments: pd.DataFrame) -> NDArray[np.object_]:
    pairs = segments[[c.USER_ID, c.SEGMENT]].dropna().drop_duplicates()
    if pairs[c.USER_ID].duplicated().any():
        raise _two_segments()
    by_user = pairs.set_index(c.USER_ID)[c.SEGMENT]
    return by_user.reindex(users).astype(object).to_numpy()


# -- Spark -----------------------------------------------------------------------------------------------------------


def evaluate_spark(
    lists: DataFrame,
    truth: DataFrame,
    ks: tuple[int, ...],
    n_items: int,
    bootstrap: int = 200,
    catalogue: Catalogue | None = None,
    histories: DataFrame | None = None,
    segments: DataFrame | None = None,
) -> Metrics:
    """The same from Spark frames. One shuffle brings a user's rows together; sums and item counts travel on.

    A task sorts its rows by user (Spark spills what does not fit) and takes them in blocks, so that its memory does not
    depend on the number of users. The driver holds one row of counts an item.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import to_arrow_type

    plan = Plan(ks, bootstrap, catalogue, histories is not None)
    together = _together(lists, truth, histories, segments, catalogue)
    item = together.schema[c.ITEM_ID].dataType
    schema = f"error binary, segment string, sums binary, item {item.simpleString()}, shown array<double>"
    sums = partial(_sums_of_a_task, item_type=to_arrow_type(item))
    # Read twice, and as small as the catalogue.
    found = together.mapInArrow(_task(_shared(together, plan), sums), schema).persist()
    try:
        evaluation = Evaluation(plan)
        totals = [F.sum(F.col("shown")[n]).alias(str(n)) for n in range(evaluation.columns)]
        # First, because it runs all tasks at once; an iterator on the driver would run them one after another.
        shown = found.where("item is not null").groupBy("item").agg(*totals).toPandas()
        for row in found.where("item is null").toLocalIterator():
            if row["error"] is not None:
                raise pickle.loads(row["error"])
            evaluation.add_part({row["segment"]: Sums.unpack(row["sums"], len(plan.names))})
    finally:
        found.unpersist()
    evaluation.add_part({}, shown["item"].to_numpy(), shown.drop(columns="item").to_numpy(np.float64))
    return evaluation.finish(n_items)


def per_user_spark(
    lists: DataFrame,
    truth: DataFrame,
    ks: tuple[int, ...],
    catalogue: Catalogue | None = None,
    histories: DataFrame | None = None,
) -> DataFrame:
    """`per_user_numpy` as a Spark frame."""
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import DoubleType, StructField, StructType

    plan = Plan(ks, 0, catalogue, histories is not None)
    together = _together(lists, truth, histories, None, catalogue)
    user = StructField(c.USER_ID, together.schema[c.USER_ID].dataType)
    schema = StructType([user, *(StructField(name, DoubleType()) for name in plan.names)])
    figures = partial(_figures_of_a_task, user_type=to_arrow_type(user.dataType))
    return together.mapInArrow(_task(_shared(together, plan), figures), schema)


def _together(
    lists: DataFrame,
    truth: DataFrame,
    histories: DataFrame | None,
    segments: DataFrame | None,
    catalogue: Catalogue | None,
) -> DataFrame:
    """user_id, item_id, rank or what else the row is, and segment; a user's rows follow each other in one partition."""
    from pyspark.sql import functions as F

    parts = {"lists": lists, "truth": truth, "histories": histories, "segments": segments}
    for name, part in parts.items():
        needed = {"lists": (*_PAIR, c.RANK), "segments": (c.USER_ID, c.SEGMENT)}.get(name, _PAIR)
        _require(name, None if part is None else part.columns, *needed)
    given = [part for part in parts.values() if part is not None]
    _same_types(c.USER_ID, [_kind(part, c.USER_ID) for part in given])
    _same_types(c.ITEM_ID, [_kind(part, c.ITEM_ID) for part in given if c.ITEM_ID in part.columns], catalogue)
    whole = F.col(c.RANK).cast("bigint")
    rank = F.when((whole >= 1) & (whole == F.col(c.RANK)), whole).otherwise(F.lit(0))
    rows = lists.select(*_PAIR, rank.alias(c.RANK))
    for part, mark in ((truth, HELD_OUT), (histories, HISTORY)):
        if part is not None:
            rows = rows.unionByName(part.select(*_PAIR, F.lit(mark).cast("bigint").alias(c.RANK)))
    if segments is not None:
        rows = rows.withColumn(c.SEGMENT, F.lit(None).cast("string"))
        # Any item will do: without one, integers would become floats on their way to NumPy.
        any_item = F.lit(0).cast(lists.schema[c.ITEM_ID].dataType).alias(c.ITEM_ID)
        kind = F.lit(SEGMENT).cast("bigint").alias(c.RANK)
        rows = rows.unionByName(segments.select(c.USER_ID, any_item, kind, F.col(c.SEGMENT).cast("string")))
    return rows.repartition(c.USER_ID).sortWithinPartitions(c.USER_ID)


def _shared(together: DataFrame, plan: Plan) -> Callable[[], Plan]:
    """The plan in the tasks, sent to each executor once."""
    sent = together.sparkSession.sparkContext.broadcast(plan)
    return lambda: sent.value


_Task = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def _task(plan: Callable[[], Plan], work: Callable[[Evaluation, Iterable[Block]], Iterator[pa.RecordBatch]]) -> _Task:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from work(Evaluation(plan()), _blocks_of_batches(batches))

    return run


def _sums_of_a_task(
    evaluation: Evaluation, blocks: Iterable[Block], item_type: pa.DataType
) -> Iterator[pa.RecordBatch]:
    """Rows of an error, or of a segment's sums, or of an item's counts."""

    def batch(n: int, **given: pa.Array) -> pa.RecordBatch:
        types = {"error": pa.binary(), "segment": pa.string(), "sums": pa.binary(), "item": item_type}
        columns = {name: given.get(name, pa.nulls(n, kind)) for name, kind in types.items()}
        columns["shown"] = given.get("shown", pa.nulls(n, pa.list_(pa.float64())))
        return pa.RecordBatch.from_pydict(columns)

    try:
        for block in blocks:
            evaluation.add(block)
    except AvrecError as error:
        # A named error reaches the driver as it is, and without retries of the task.
        yield batch(1, error=pa.array([pickle.dumps(error)], pa.binary()))
        return
    for segment, sums in evaluation.sums.items():
        yield batch(1, segment=pa.array([segment], pa.string()), sums=pa.array([sums.pack()], pa.binary()))
    listed = np.flatnonzero(evaluation.shown.any(axis=1))
    for start in range(0, len(listed), _ITEMS_A_BATCH):
        some = listed[start : start + _ITEMS_A_BATCH]
        counts = evaluation.shown[some]
        ends = pa.array(np.arange(len(some) + 1, dtype=np.int32) * counts.shape[1])
        items = pa.array(evaluation.items.index[some].to_numpy(), item_type)
        yield batch(len(some), item=items, shown=pa.ListArray.from_arrays(ends, pa.array(counts.ravel())))


def _figures_of_a_task(
    evaluation: Evaluation, blocks: Iterable[Block], user_type: pa.DataType
) -> Iterator[pa.RecordBatch]:
    for block in blocks:
        measured = evaluation.measure(block)
        if measured is not None:
            users, values = measured
            columns = [pa.array(users, user_type), *(pa.array(column) for column in values.T)]
            yield pa.RecordBatch.from_arrays(columns, [c.USER_ID, *evaluation.plan.names])


def _blocks_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[Block]:
    """Blocks of whole users from rows that are sorted by user: the last user of a block waits for the next."""
    waiting: list[list[NDArray[Any]]] = []
    n, enough = 0, BLOCK_ROWS
    for batch in batches:
        if not batch.num_rows:
            continue
        # user_id, item_id, rank and, with segments, segment.
        waiting.append([column.to_numpy(zero_copy_only=False) for column in batch.columns])
        n += batch.num_rows
        if n >= enough:
            rows = [np.concatenate(parts) for parts in zip(*waiting, strict=True)]
            last = int(np.argmax(rows[0] == rows[0][-1]))
            if last:
                yield _block(*(part[:last] for part in rows))
            waiting = [[part[last:] for part in rows]]
            n = n - last
            # A user of very many rows must not be copied with each batch.
            enough = max(BLOCK_ROWS, 2 * n)
    if waiting:
        yield _block(*(np.concatenate(parts) for parts in zip(*waiting, strict=True)))


def _block(
    user: NDArray[Any], item: NDArray[Any], rank: NDArray[np.int64], segment: NDArray[Any] | None = None
) -> Block:
    if pd.isna(user).any():
        raise DataError(f"Some rows have no {c.USER_ID}.", "Leave rows without an id out.")
    starts = np.concatenate([[True], user[1:] != user[:-1]])
    positions, users = np.cumsum(starts) - 1, user[starts]
    labels = None if segment is None else np.full(len(users), None, np.object_)
    if segment is not None and labels is not None:
        marked = (rank == SEGMENT) & ~pd.isna(segment)
        labels[positions[marked]] = segment[marked]
        if (labels[positions[marked]] != segment[marked]).any():
            raise _two_segments()
    rows = rank != SEGMENT
    return Block(users, positions[rows], item[rows], rank[rows], labels)


# -- what both refuse ------------------------------------------------------------------------------------------------


def _require(name: str, columns: Iterable[str] | None, *needed: str) -> None:
    present = list(needed if columns is None else columns)
    if missing := set(needed) - set(present):
        raise MissingColumnsError(f"The frame {name}", missing, map(str, present))


def _kind(frame: DataFrame, name: str) -> str:
    from pyspark.sql.types import NumericType

    return "numbers" if isinstance(frame.schema[name].dataType, NumericType) else "text"


def _same_types(name: str, columns: Iterable[Any], catalogue: Catalogue | None = None) -> None:
    """Raises `DataError` where ids are numbers in one place and text in another: none of them would match."""
    kinds = {
        column if isinstance(column, str) else "numbers" if pd.api.types.is_numeric_dtype(column) else "text"
        for column in columns
        if isinstance(column, str) or len(column)
    }
    if catalogue is not None and len(catalogue.ids):
        kinds.add("numbers" if pd.api.types.is_numeric_dtype(catalogue.ids) else "text")
    if len(kinds) > 1:
        raise DataError(
            f"The column {name} holds numbers in one input and text in another.", "Give all ids of a column one type."
        )


def _two_segments() -> DataError:
    return DataError("Some users are in more than one segment.", "Give each user one segment.")
