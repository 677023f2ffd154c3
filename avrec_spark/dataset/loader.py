"""Training batches from a snapshot, sharded by rank. The only module that knows petastorm."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.errors import DataError

# petastorm 0.13 uses names that pyarrow 14 and setuptools call deprecated; its own modules only are silenced.
for category in (FutureWarning, DeprecationWarning):
    warnings.filterwarnings("ignore", category=category, module=r"petastorm\b")
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from petastorm import make_batch_reader  # noqa: E402

_COLUMNS = (c.USER_INDEX, c.ITEM_INDEX, c.WEIGHT)


class Batch(NamedTuple):
    """Interactions: int64[n], int64[n], float32[n]."""

    user_index: NDArray[np.int64]
    item_index: NDArray[np.int64]
    weight: NDArray[np.float32]


class Loader:
    """Batches of a snapshot's train part for one rank, without end.

    Every rank takes the same number of steps an epoch, whatever its share of the rows; a rank whose share is smaller
    sees some rows again. Row groups are shuffled by the reader, rows within a buffer of a few row groups here.

    Raises `DataError` where there are fewer row groups than ranks: some rank would have nothing to read.
    """

    def __init__(self, path: str | Path, batch_size: int, rank: int = 0, size: int = 1, seed: int = 42) -> None:
        folder = Path(path) / "train"
        files = [pq.ParquetFile(file).metadata for file in sorted(folder.glob("*.parquet"))]
        groups, rows = sum(file.num_row_groups for file in files), sum(file.num_rows for file in files)
        if groups < size:
            raise DataError(
                f"The snapshot {path} has {groups} row groups for {size} ranks.",
                f"Write it again with snapshot.row_groups={size} or more, or lower train.workers.",
            )
        self.batch_size = batch_size
        self.steps = max(1, -(-rows // (batch_size * size)))
        self.waited_seconds = 0.0
        self._generator = np.random.default_rng([seed, rank])
        self._reader: Any = _open(folder, rank, size, seed)
        self._rows = self._shuffled()

    def epoch(self) -> Iterator[Batch]:
        """`steps` batches; the time spent waiting for them is added to `waited_seconds`."""
        for _ in range(self.steps):
            started = time.perf_counter()
            batch = next(self._rows)
            self.waited_seconds += time.perf_counter() - started
            yield batch

    def close(self) -> None:
        self._reader.stop()
        self._reader.join()

    def _shuffled(self) -> Iterator[Batch]:
        """Batches drawn from a buffer that is refilled by whole row groups."""
        empty = Batch(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        buffer = empty
        while True:
            while len(buffer.user_index) < 4 * self.batch_size:
                group = next(self._reader)
                parts = (np.asarray(getattr(group, name)) for name in _COLUMNS)
                buffer = Batch(*(np.concatenate(pair) for pair in zip(buffer, parts, strict=True)))
            order = self._generator.permutation(len(buffer.user_index))
            buffer = Batch(*(part[order] for part in buffer))
            # Half of what was shuffled goes out; the rest is mixed with the next row groups.
            for _ in range(2):
                yield Batch(*(part[: self.batch_size] for part in buffer))
                buffer = Batch(*(part[self.batch_size :] for part in buffer))


def _open(folder: Path, rank: int, size: int, seed: int) -> Any:
    return make_batch_reader(
        folder.absolute().as_uri(),
        schema_fields=list(_COLUMNS),
        # One thread reads ahead and keeps the order that the seed gives.
        reader_pool_type="thread",
        workers_count=1,
        cur_shard=rank,
        shard_count=size,
        shuffle_row_groups=True,
        seed=seed,
        num_epochs=None,
    )
