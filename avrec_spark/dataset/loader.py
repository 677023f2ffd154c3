"""Training batches from a snapshot, sharded by rank. The only module that knows petastorm."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

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

Reader = Literal["interactions", "sequences"]
# A buffer that is shuffled holds at least so many interactions, or places of sequences; smaller shards are shuffled
# as a whole.
_BUFFER_ROWS = 1 << 18


class Batch(NamedTuple):
    """Interactions: int64[n], int64[n], float32[n]."""

    user_index: NDArray[np.int64]
    item_index: NDArray[np.int64]
    weight: NDArray[np.float32]


class SequenceBatch(NamedTuple):
    """Users with their latest interactions, the last of them in the last column.

    user_index int64[n]; items int64[n, length], before the first one -1; times float64[n, length] in epoch seconds
    and weights float32[n, length], 0 where there is no item.
    """

    user_index: NDArray[np.int64]
    items: NDArray[np.int64]
    times: NDArray[np.float64]
    weights: NDArray[np.float32]


AnyBatch: TypeAlias = Batch | SequenceBatch
_Arrays: TypeAlias = tuple[NDArray[Any], ...]


class Loader:
    """Batches of a snapshot for one rank: every interaction, or user, of its shard once an epoch.

    `interactions` gives `Batch`es of the `part`, train/ or another with its columns; `sequences` gives
    `SequenceBatch`es of sequences/, with the last `sequence_length` interactions of each user. A shard is every
    `size`-th row group. All ranks take the same number of `steps` an epoch, or they would wait for each other for ever:
    the largest shard decides it, and each rank spreads its samples evenly over the steps, at most `batch_size` a step;
    a rank with fewer samples than steps has empty batches. `samples_per_step` and `rows_per_step` (interactions) are
    means over ranks and steps. The order of an epoch depends on the seed and the epoch's number only, so that training
    can go on in the middle of one.

    Raises `NotEnoughRowGroupsError` where there are fewer row groups than ranks.
    """

    def __init__(
        self,
        path: str | Path,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        seed: int = 42,
        *,
        part: str = "train",
        reader: Reader = "interactions",
        sequence_length: int = 50,
    ) -> None:
        self._shard = {"cur_shard": rank, "shard_count": size}
        self._length = sequence_length if reader == "sequences" else None
        self._folder = Path(path) / (part if self._length is None else "sequences")
        shards, interactions = shard_samples(self._folder, size, self._length)
        self.samples = shards[rank]
        self.steps = max(1, -(-max(shards) // batch_size))
        self.samples_per_step = sum(shards) / (self.steps * size)
        self.rows_per_step = interactions / (self.steps * size)
        self.waited_seconds = 0.0
        self._seed, self._rank = seed, rank
        self._buffer_samples = _BUFFER_ROWS // (self._length or 1)
        # The next epoch's reader is opened, and reads ahead, while this epoch ends.
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._readers: dict[int, Future[Any]] = {}
        self._kept: list[_Arrays] | None = None

    def epoch(self, number: int = 1, first_step: int = 0) -> Iterator[AnyBatch]:
        """Batches `first_step` to `steps` of an epoch; the time spent waiting for them goes to `waited_seconds`."""
        generator = np.random.default_rng([self._seed, self._rank, number])
        bounds = np.arange(self.steps + 1) * self.samples // self.steps
        groups, unread, buffer = self._groups(number), self.samples, self._empty()
        for step, n in enumerate(np.diff(bounds)):
            started = time.perf_counter()
            wanted = max(int(n), self._buffer_samples)
            if unread and len(buffer[0]) < wanted:
                parts = [buffer]
                while unread and sum(len(part[0]) for part in parts) < 2 * wanted:
                    parts.append(next(groups))
                    unread -= len(parts[-1][0])
                order = generator.permutation(sum(len(part[0]) for part in parts))
                buffer = tuple(np.concatenate(columns)[order] for columns in zip(*parts, strict=True))
            batch, buffer = tuple(part[:n] for part in buffer), tuple(part[n:] for part in buffer)
            self.waited_seconds += time.perf_counter() - started
            if step >= first_step:
                yield Batch(*batch) if self._length is None else _trimmed(SequenceBatch(*batch))

    def close(self) -> None:
        for number in tuple(self._readers):
            self._close(number)
        self._opener.shutdown()

    def _groups(self, number: int) -> Iterator[_Arrays]:
        """The shard's row groups in the order of an epoch; those of a shard that fits the buffer are kept."""
        if self._kept is not None:
            yield from self._kept
            return
        small = self.samples <= 2 * self._buffer_samples
        # What is kept must not depend on the epoch that reads it.
        number = 0 if small else number
        self._open(number)
        reader = self._readers[number].result()
        names = (c.USER_INDEX, c.ITEM_INDEX, c.WEIGHT, *((c.TIMESTAMP,) if self._length else ()))
        unread, kept = self.samples, []
        while unread:
            table = next(reader)
            columns = tuple(np.asarray(getattr(table, name)) for name in names)
            part: _Arrays = columns if self._length is None else sequences(self._length, *columns)
            unread -= len(part[0])
            if small:
                kept.append(part)
            if not unread:
                self._close(number)
                if small:
                    self._kept = kept
                else:
                    self._open(number + 1)
            yield part

    def _open(self, number: int) -> None:
        if number not in self._readers:
            self._readers[number] = self._opener.submit(
                make_batch_reader,
                self._folder.absolute().as_uri(),
                schema_fields=[c.USER_INDEX, c.ITEM_INDEX, c.WEIGHT, *([c.TIMESTAMP] if self._length else [])],
                # One thread reads ahead, and keeps the order that the seed gives.
                reader_pool_type="thread",
                workers_count=1,
                shuffle_row_groups=True,
                seed=int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]),
                # petastorm ends an epoch early when its worker has caught up with what was handed out (a race in
                # ThreadPool.get_results): never let it end, and stop it when the rows have come.
                num_epochs=None,
                **self._shard,
            )

    def _close(self, number: int) -> None:
        reader = self._readers.pop(number).result()
        reader.stop()
        reader.join()

    def _empty(self) -> _Arrays:
        ids, weights = np.empty(0, np.int64), np.empty(0, np.float32)
        return (ids, ids, weights) if self._length is None else sequences(self._length, ids, ids, weights, weights)


def sequences(
    length: int, users: NDArray[Any], items: NDArray[Any], weights: NDArray[Any], times: NDArray[Any]
) -> SequenceBatch:
    """Rows in order of user and time as padded sequences of the last `length` rows of each user.

    >>> batch = sequences(2, np.array([7, 7, 7, 9]), np.array([3, 1, 2, 5]), np.ones(4, "f4"), np.arange(4.0))
    >>> batch.user_index.tolist(), batch.items.tolist()
    ([7, 9], [[1, 2], [-1, 5]])
    """
    first = np.flatnonzero(np.diff(users, prepend=-1))
    sizes = np.diff(first, append=len(users))
    row = np.repeat(np.arange(len(first)), sizes)
    column = length - np.repeat(first + sizes, sizes) + np.arange(len(users))
    kept = column >= 0
    place = row[kept], column[kept]
    shape = len(first), length
    batch = SequenceBatch(users[first], np.full(shape, -1, np.int64), np.zeros(shape), np.zeros(shape, np.float32))
    for target, values in ((batch.items, items), (batch.times, times), (batch.weights, weights)):
        target[place] = values[kept]
    return batch


def shard_samples(folder: Path, size: int, sequence_length: int | None = None) -> tuple[list[int], int]:
    """(samples of each rank's shard, interactions in all): row groups in order of file and position, dealt in turn.

    A sample is an interaction or, with a sequence length, a user, of whom so many interactions count.
    """
    files = [pq.ParquetFile(file) for file in sorted(folder.glob("*.parquet"))]
    places = [(file, number) for file in files for number in range(file.num_row_groups)]
    if len(places) < size:
        raise NotEnoughRowGroupsError(str(folder), len(places), size)
    if sequence_length is None:
        groups = [file.metadata.row_group(number).num_rows for file, number in places]
        return [sum(groups[rank::size]) for rank in range(size)], sum(groups)
    users = [file.read_row_group(number, [c.USER_INDEX])[c.USER_INDEX].to_numpy() for file, number in places]
    lengths = [np.unique(group, return_counts=True)[1] for group in users]
    interactions = int(sum(np.minimum(group, sequence_length).sum() for group in lengths))
    return [sum(len(group) for group in lengths[rank::size]) for rank in range(size)], interactions


def _trimmed(batch: SequenceBatch) -> SequenceBatch:
    """Without the columns that no sequence of the batch reaches; one column at least."""
    used = np.flatnonzero((batch.items >= 0).any(axis=0))
    start = min(used[0] if len(used) else batch.items.shape[1], batch.items.shape[1] - 1)
    return SequenceBatch(batch.user_index, batch.items[:, start:], batch.times[:, start:], batch.weights[:, start:])
