"""Ratios of sums over rows, with intervals over users: one kernel for errors of predictions and for logged impressions.

A row adds to sums; a figure is a function of the sums. The bootstrap draws users, not rows, because rows of one user
depend on each other; the draw is a hash of the user, so that a user's rows may lie in any task and nothing is shuffled.
Without a column user_id every row stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.evaluation.bootstrap import Metrics, Sums, figures

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROWS_AT_ONCE = 2**18
Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class RowKernel:
    """`add` gives what each row adds, by name, and raises `DataError`; `finish` makes figures of the sums.

    Sums are float64[1 + samples] by name. `needs` are the columns without which there is nothing to measure; `takes`
    are those that are used where they are there.
    """

    add: Callable[[pd.DataFrame], Columns]
    finish: Callable[[Columns], Columns]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()

    def columns(self, present: Iterable[str], where: str) -> list[str]:
        """Those that are read. Raises `MissingColumnsError`."""
        present = list(present)
        missing = set(self.needs) - set(present)
        if missing:
            raise MissingColumnsError(where, missing, map(str, present))
        return [*self.needs, *(name for name in (c.USER_ID, *self.takes) if name in present)]


def measure_numpy(kernel: RowKernel, rows: pd.DataFrame, samples: int = 200) -> Metrics:
    """Figures of a frame. Raises `MissingColumnsError`, and `DataError` for impossible values or no row."""
    read = rows[kernel.columns(rows.columns, "The frame")]
    total, names = None, None
    for start in range(0, len(read), _ROWS_AT_ONCE):
        # Without users, rows are told apart by their place.
        names, sums = _sums(kernel, read.iloc[start : start + _ROWS_AT_ONCE], samples, start)
        total = sums if total is None else total + sums
    return _finish(kernel, names, total)


def measure_spark(kernel: RowKernel, rows: DataFrame, samples: int = 200) -> Metrics:
    """The same from a Spark frame, without a shuffle: a task reads its rows in batches, and sums travel.

    Without a column user_id the intervals are of other samples than pandas draws; the means are the same.
    """
    import pickle

    from avrec_spark.errors import AvrecError

    read = rows.select(*kernel.columns(rows.columns, "The frame"))

    def task(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        from pyspark import TaskContext

        context = TaskContext.get()
        total, names, start = None, None, (context.partitionId() if context else 0) * 2**40
        try:
            for batch in batches:
                if len(batch):
                    names, sums = _sums(kernel, batch, samples, start)
                    total, start = sums if total is None else total + sums, start + len(batch)
        except AvrecError as error:
            yield pd.DataFrame({"error": [pickle.dumps(error)], "names": [None], "sums": [None]})
            return
        if total is not None and names is not None:
            yield pd.DataFrame({"error": [None], "names": [",".join(names)], "sums": [total.pack()]})

    total, names = None, None
    for row in read.mapInPandas(task, "error binary, names string, sums binary").collect():
        if row["error"] is not None:
            raise pickle.loads(row["error"])
        names = row["names"].split(",")
        sums = Sums.unpack(row["sums"], len(names))
        total = sums if total is None else total + sums
    return _finish(kernel, names, total)


def _sums(kernel: RowKernel, rows: pd.DataFrame, samples: int, start: int) -> tuple[list[str], Sums]:
    added = kernel.add(rows)
    values = np.stack(list(added.values()), axis=1)
    if c.USER_ID in rows:
        codes, users = pd.factorize(rows[c.USER_ID])
        if (codes < 0).any():
            raise DataError(f"Some rows have no {c.USER_ID}.", "Leave rows without an id out.")
        values = np.stack([np.bincount(codes, column, len(users)) for column in values.T], axis=1)
        ids = np.asarray(users)
    else:
        ids = np.arange(start, start + len(rows))
    return list(added), Sums.of_ratios(ids, values, np.ones_like(values), samples)


def _finish(kernel: RowKernel, names: list[str] | None, total: Sums | None) -> Metrics:
    if names is None or total is None:
        raise DataError("There is no row to evaluate on.", "Give a frame with rows.")
    with np.errstate(invalid="ignore", divide="ignore"):
        found = kernel.finish(dict(zip(names, total.total.T, strict=True)))
    means = np.stack(list(found.values()), axis=1)
    return figures(list(found), np.where(np.isfinite(means), means, np.nan))


def numbers(rows: pd.DataFrame, name: str, low: float = -np.inf, high: float = np.inf) -> NDArray[np.float64]:
    """A column as float64. Raises `DataError` for NaN, infinity, text, and values outside low and high."""
    values = pd.to_numeric(rows[name], errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
    if wrong.any():
        allowed = "numbers" if low == -np.inf else f"from {low:g} to {high:g}" if high < np.inf else f"{low:g} or more"
        raise DataError(
            f"The column {name} has values that cannot be, the first is {rows[name][wrong].iloc[0]!r}.",
            f"They must be {allowed}, without NaN.",
        )
    return values


def weights(rows: pd.DataFrame) -> NDArray[np.float64]:
    """The column weight, at least 0; 1 where there is none."""
    return numbers(rows, c.WEIGHT, 0.0) if c.WEIGHT in rows else np.ones(len(rows))
