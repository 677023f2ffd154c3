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
from avrec_spark.errors import NotEnoughRowGroupsError

# petastorm 0.13 uses names that pyarrow 14 and setuptools call deprecated; its own modules only are silenced.
for category in (FutureWarning, DeprecationWarning):
    warnings.filterwarnings("ignore", category=category, module=r"petastorm\b")
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from petastorm import make_batch_reader  # noqa: E402

_COLUMNS = (c.USER_INDEX, c.ITEM_INDEX, c.WEIGHT)
# Rows are shuffled in a buffer of at least so many; smaller shards are shuffled as a whole.
_BUFFER_ROWS = 1 << 18


class Batch(NamedTuple):
    """Interactions: int64[n], int64[n], float32[n]."""

    user_index: NDArray[np.int64]
    item_index: NDArray[np.int64]
    weight: NDArray[np.float32]


class Loader:
    """Batches of a snapshot's train part for one rank: every row of its shard once an epoch, in another order each.

    A shard is every `size`-th row group. All ranks take the same number of `steps` an epoch, or they would wait for
    each other for ever: the largest shard decides it, and each rank spreads its rows evenly over the steps, at most
    `batch_size` a step. `rows_per_step` is the mean over ranks and steps. The same seed gives the same batches.

    Raises `NotEnoughRowGroupsError` where there are fewer row groups than ranks.
    """

    def __init__(self, path: str | Path, batch_size: int, rank: int = 0, size: int = 1, seed: int = 42) -> None:
        folder = Path(path) / "train"
        shards = shard_rows(folder, size)
        self.rows = shards[rank]
        self.steps = max(1, -(-max(shards) // batch_size))
        self.rows_per_step = sum(shards) / (self.steps * size)
        self.waited_seconds = 0.0
        self._generator = np.random.default_rng([seed, rank])
        self._reader: Any = make_batch_reader(
            folder.absolute().as_uri(),
            schema_fields=list(_COLUMNS),
            # One thread reads ahead, also into the next epoch, and keeps the order that the seed gives.
            reader_pool_type="thread",
            workers_count=1,
            cur_shard=rank,
            shard_count=size,
            shuffle_row_groups=True,
            seed=seed,
            num_epochs=None,
        )

    def epoch(self) -> Iterator[Batch]:
        """`steps` batches; the time spent waiting for them is added to `waited_seconds`. To be read to the end."""
        ends = np.arange(1, self.steps + 1) * self.rows // self.steps
        unread, buffer = self.rows, Batch(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        for n_rows in np.diff(ends, prepend=0):
            started = time.perf_counter()
            wanted = max(int(n_rows), _BUFFER_ROWS)
            if unread and len(buffer.weight) < wanted:
                buffer, unread = self._filled(buffer, unread, 2 * wanted)
            batch = Batch._make(part[:n_rows] for part in buffer)
            buffer = Batch._make(part[n_rows:] for part in buffer)
            self.waited_seconds += time.perf_counter() - started
            yield batch

    def close(self) -> None:
        self._reader.stop()
        self._reader.join()

    def _filled(self, buffer: Batch, unread: int, wanted: int) -> tuple[Batch, int]:
        """The buffer with further row groups, shuffled, and how many rows of the epoch are left to read."""
        groups = [buffer]
        while unread and sum(len(group.weight) for group in groups) < wanted:
            table = next(self._reader)
            groups.append(Batch(*(np.asarray(getattr(table, name)) for name in _COLUMNS)))
            unread -= len(groups[-1].weight)
        order = self._generator.permutation(sum(len(group.weight) for group in groups))
        return Batch(*(np.concatenate(parts)[order] for parts in zip(*groups, strict=True))), unread


def shard_rows(folder: Path, size: int) -> list[int]:
    """Rows of each rank's shard: row groups in order of file name and position, dealt to the ranks in turn."""
    files = [pq.ParquetFile(file).metadata for file in sorted(folder.glob("*.parquet"))]
    groups = [file.row_group(number).num_rows for file in files for number in range(file.num_row_groups)]
    if len(groups) < size:
        raise NotEnoughRowGroupsError(str(folder), len(groups), size)
    return [sum(groups[rank::size]) for rank in range(size)]
