from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from avrec_spark.dataset import loader as module
from avrec_spark.dataset.loader import Batch, Loader, SequenceBatch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import NotEnoughRowGroupsError


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """23 users with 1 to 23 interactions, whose times rise against the order of the rows."""
    user = np.repeat(np.arange(23), np.arange(1, 24))
    frame = pd.DataFrame({"user_id": user, "item_id": np.arange(len(user)) % 30, "weight": 1.0 + user})
    frame["timestamp"] = np.arange(len(user))[::-1].astype(float)
    written = TrainingSet.from_frames(frame).write(tmp_path_factory.mktemp("snapshot"), row_groups=7)
    written.write_sequences(row_groups=5)
    return written


def read(snapshot, number=1, first_step=0, **options):
    loader = Loader(snapshot.path, 16, **options)
    try:
        return list(loader.epoch(number, first_step))
    finally:
        loader.close()


@pytest.mark.parametrize("buffer", [1, 1 << 18], ids=["in parts", "kept"])
@pytest.mark.parametrize("reader", ["interactions", "sequences"])
def test_an_epoch_goes_on_in_its_middle_as_if_nothing_had_happened(snapshot, monkeypatch, reader, buffer):
    monkeypatch.setattr(module, "_BUFFER_ROWS", buffer)
    loader = Loader(snapshot.path, 4, reader=reader)
    list(loader.epoch(1))
    whole = list(loader.epoch(2))
    loader.close()
    resumed = Loader(snapshot.path, 4, reader=reader)
    rest = list(resumed.epoch(2, first_step=2))
    resumed.close()
    assert len(rest) == len(whole) - 2
    for batch, expected in zip(rest, whole[2:], strict=True):
        for part, other in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(part, other)


def test_every_epoch_has_an_order_of_its_own(snapshot):
    first, second = (np.concatenate([batch.item_index for batch in read(snapshot, number)]) for number in (1, 2))
    assert sorted(first) == sorted(second)
    assert (first != second).any()


def test_sequences_are_the_latest_items_of_every_user_once(snapshot):
    batches = [
        batch for rank in (0, 1) for batch in read(snapshot, reader="sequences", sequence_length=6, size=2, rank=rank)
    ]
    assert all(isinstance(batch, SequenceBatch) for batch in batches)
    found = {}
    for batch in batches:
        for user, items, times, weights in zip(*batch, strict=True):
            kept = items >= 0
            # Padding lies before the first item, and weighs nothing.
            assert (np.diff(kept.astype(int)) >= 0).all()
            assert not weights[~kept].any()
            assert user not in found
            found[user] = list(zip(items[kept], times[kept], weights[kept], strict=True))
    rows = zip(snapshot.user_index, snapshot.item_index, snapshot.timestamp, snapshot.weight, strict=True)
    expected = {}
    for user, item, time, weight in sorted(rows, key=lambda row: row[2]):
        expected[user] = [*expected.get(user, []), (item, time, weight)][-6:]
    assert found == expected


def test_the_mean_of_rows_a_step_counts_what_is_kept_of_a_sequence(snapshot):
    loader = Loader(snapshot.path, 16, reader="sequences", sequence_length=6)
    loader.close()
    assert (loader.samples, loader.steps) == (23, 2)
    # 1 + 2 + 3 + 4 + 5 and 18 users with 6 each.
    assert loader.rows_per_step == (15 + 18 * 6) / 2


def test_sequences_are_written_once(snapshot):
    part = f"{snapshot.path}/sequences/part-0.parquet"
    with open(part, "rb") as file:
        before = file.read()
    snapshot.write_sequences(row_groups=2)
    with open(part, "rb") as file:
        assert file.read() == before


def test_a_rank_with_fewer_rows_than_steps_has_empty_batches(tmp_path):
    pairs = pd.DataFrame({"user_id": np.arange(43), "item_id": np.arange(43)})
    TrainingSet.from_frames(pairs).write(tmp_path)
    (part,) = (tmp_path / "train").glob("*.parquet")
    table = pq.read_table(part)
    with pq.ParquetWriter(part, table.schema) as writer:
        writer.write_table(table.slice(0, 40))
        writer.write_table(table.slice(40))
    sizes = []
    for rank in (0, 1):
        loader = Loader(tmp_path, 8, rank, 2)
        sizes.append([len(batch.weight) for batch in loader.epoch(1)])
        loader.close()
    assert sizes == [[8, 8, 8, 8, 8], [0, 1, 0, 1, 1]]


def test_fewer_row_groups_than_ranks_are_refused_by_name(snapshot):
    for reader, groups in (("interactions", 7), ("sequences", 5)):
        with pytest.raises(NotEnoughRowGroupsError, match=f"{groups} row groups for 8 ranks"):
            Loader(snapshot.path, 32, rank=0, size=8, reader=reader)


def test_batches_are_interactions_unless_told_otherwise(snapshot):
    batches = read(snapshot)
    assert all(isinstance(batch, Batch) for batch in batches)
    assert sum(len(batch.weight) for batch in batches) == len(snapshot.weight)
