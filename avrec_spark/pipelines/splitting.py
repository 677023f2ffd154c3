"""The splits of `avrec_spark.dataset.splits` on Spark frames: the same kernels, so the same rows in every part."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark.dataset.splits import KEYS, TEST, TRAIN, Split, lowest, split_at, split_keys, time_cuts
from avrec_spark.errors import DataError

# Many whole groups a call: the kernels are vectorised, and a call a user would cost more than the work.
_ROWS_A_CALL = 250_000


def split(pairs: DataFrame, how: Split) -> DataFrame:
    """Adds the column `split`. Times are numbers: local times of a Spark session repeat an hour once a year.

    A split by moment collects the distinct times (16 bytes each), a cold split the distinct ids of one kind.
    """
    if how.group is not None:
        return _whole_groups(pairs, how.group, how)
    if how.kind in KEYS:
        key = KEYS[how.kind]
        ids = pairs.select(key).distinct().toPandas()[key]
        parts = split_keys(ids, how.validation_share, how.test_share, how.seed)
        frame = pd.DataFrame({key: parts.index, c.SPLIT: parts.to_numpy()})
        lookup = pairs.sparkSession.createDataFrame(frame, f"`{key}` {dict(pairs.dtypes)[key]}, {c.SPLIT} string")
        return pairs.join(F.broadcast(lookup), key).select(*pairs.columns, c.SPLIT)
    times = pairs.groupBy(c.TIMESTAMP).count().toPandas()
    cuts = time_cuts(times[c.TIMESTAMP], times["count"], how.validation_share, how.test_share)

    def at_cuts(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        yield from (split_at(batch, *cuts) for batch in batches)

    return pairs.mapInPandas(at_cuts, _schema(pairs))


def stratified_split(
    interactions: DataFrame, ratio: float = 0.75, by: str = c.ITEM_ID, seed: int = 42
) -> tuple[DataFrame, DataFrame]:
    """(train, test) as `dataset.splits.stratified_split` gives them. Raises `DataError` where `row` is not 0, 1, 2 ….

    The numbers that the rows draw depend on their places in the whole file.
    """
    found = interactions.agg(F.count(c.ROW), F.count_distinct(c.ROW), F.min(c.ROW), F.max(c.ROW)).first()
    assert found is not None
    n, distinct, first, last = found
    if n and (distinct, first, last) != (n, 0, n - 1):
        raise DataError(
            f"The column {c.ROW} has {distinct} values from {first} to {last} for {n} rows.",
            "A split in file order needs whole files: number their rows 0, 1, 2 and so on, before any is left out.",
        )

    def draw(rows: pd.DataFrame) -> pd.DataFrame:
        # Every task draws all numbers: a hundredth of a second a million rows, and nothing to send.
        draws = np.random.RandomState(seed).rand(n)[rows[c.ROW]]
        return rows.assign(**{c.SPLIT: np.where(lowest(rows[by], draws, ratio), TRAIN, TEST)})

    parts = _whole_groups(interactions, by, draw)
    return tuple(parts.where(F.col(c.SPLIT) == part).drop(c.SPLIT) for part in (TRAIN, TEST))  # type: ignore[return-value]


def _whole_groups(pairs: DataFrame, group: str, kernel: Callable[[pd.DataFrame], pd.DataFrame]) -> DataFrame:
    calls = max(pairs.sparkSession.sparkContext.defaultParallelism, pairs.count() // _ROWS_A_CALL)
    whole = pairs.groupBy(F.pmod(F.xxhash64(group), F.lit(calls)))
    return whole.applyInPandas(lambda rows: kernel(rows), _schema(pairs))


def _schema(pairs: DataFrame) -> str:
    return ", ".join(f"`{name}` {kind}" for name, kind in pairs.dtypes) + f", {c.SPLIT} string"
