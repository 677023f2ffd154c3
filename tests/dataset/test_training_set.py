from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, MissingColumnsError

ROWS = pd.DataFrame(
    {
        "user_id": [1, 1, 2, 2],
        "item_id": ["a", "b", "b", "b"],
        "weight": [1.0, 2.0, 0.5, 1.0],
        "timestamp": [10.0, 20.0, 30.0, 40.0],
    }
)
LOOKS = pd.DataFrame({"item_id": ["a", "z"], "vector": [[1.0, 0.0], [0.0, 2.0]]})


def dense(training_set: TrainingSet) -> pd.DataFrame:
    """Users × items with their ids as labels, in sorted order."""
    frame = pd.DataFrame(
        training_set.matrix().toarray(), index=training_set.users.ids.tolist(), columns=training_set.items.ids.tolist()
    )
    return frame.sort_index().sort_index(axis=1)


def test_weights_of_a_repeated_pair_are_summed() -> None:
    assert dense(TrainingSet.from_frames(ROWS)).to_dict("index") == {1: {"a": 1.0, "b": 2.0}, 2: {"a": 0.0, "b": 1.5}}


def test_items_that_only_have_features_are_items_too() -> None:
    training_set = TrainingSet.from_frames(ROWS, {"visual": LOOKS})
    visual = training_set.features["visual"]
    by_item = {item: visual.values[n].tolist() for n, item in enumerate(training_set.items.ids)}
    assert by_item == {"a": [1.0, 0.0], "b": [0.0, 0.0], "z": [0.0, 2.0]}
    assert sorted(training_set.items.ids[visual.present]) == ["a", "z"]


def test_without_weight_and_time_every_interaction_weighs_one() -> None:
    training_set = TrainingSet.from_frames(ROWS[["user_id", "item_id"]])
    assert training_set.weight.tolist() == [1.0] * 4
    assert training_set.timestamp.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "times",
    [
        ["1970-01-01T00:00:10Z", "1970-01-01T01:00:20+01:00"],
        pd.to_datetime([10, 20], unit="s"),
        pd.to_datetime([10, 20], unit="s", utc=True),
        [10, 20],
    ],
)
def test_times_become_epoch_seconds_however_they_are_written(times: object) -> None:
    rows = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": times})
    assert TrainingSet.from_frames(rows).timestamp.tolist() == [10.0, 20.0]


def test_an_unreadable_time_is_named() -> None:
    rows = ROWS.assign(timestamp=["2026-01-01", "2026-01-02", "yesterday", "2026-01-03"])
    with pytest.raises(DataError, match=r"1 timestamps cannot be read, the first is 'yesterday'\. Write epoch"):
        TrainingSet.from_frames(rows)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_a_weight_that_is_no_preference_is_refused(weight: float) -> None:
    with pytest.raises(DataError, match="negative weight or none"):
        TrainingSet.from_frames(ROWS.assign(weight=[1.0, 1.0, 1.0, weight]))


def test_a_missing_column_is_named_with_the_present_ones() -> None:
    with pytest.raises(MissingColumnsError, match="no column item_id; its columns are itemid, user_id"):
        TrainingSet.from_frames(pd.DataFrame({"user_id": [1], "itemid": [2]}))


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ([[1.0], [1.0, 2.0]], "looks vectors have different widths (1, 2)"),
        ([[1.0], [np.nan]], "looks vectors hold NaN"),
    ],
)
def test_vectors_that_cannot_be_a_matrix_are_refused(vectors: list[list[float]], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        TrainingSet.from_frames(ROWS, {"looks": pd.DataFrame({"item_id": ["a", "b"], "vector": vectors})})
    assert sentence in str(caught.value)


def test_validation_keeps_only_pairs_that_train_knows() -> None:
    validation = pd.DataFrame({"user_id": [1, 2, 3, 2], "item_id": ["b", "a", "a", "unknown"]})
    training_set = TrainingSet.from_frames(ROWS, validation=validation)
    assert training_set.validation is not None
    users = training_set.users.decode(training_set.validation["user_index"].to_numpy())
    items = training_set.items.decode(training_set.validation["item_index"].to_numpy())
    assert list(zip(users, items, strict=True)) == [(1, "b"), (2, "a")]


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    validation = pd.DataFrame({"user_id": [2], "item_id": ["a"]})
    before = TrainingSet.from_frames(ROWS, {"visual": LOOKS}, validation=validation)
    written = before.write(tmp_path)
    after = TrainingSet.read(tmp_path)
    assert written.path == after.path == str(tmp_path)
    pd.testing.assert_frame_equal(dense(after), dense(before))
    assert after.items.ids.tolist() == before.items.ids.tolist()
    assert sorted(after.timestamp.tolist()) == [10.0, 20.0, 30.0, 40.0]
    np.testing.assert_array_equal(after.features["visual"].values, before.features["visual"].values)
    np.testing.assert_array_equal(after.features["visual"].present, before.features["visual"].present)
    assert after.validation is not None and before.validation is not None
    assert after.validation.to_numpy().tolist() == before.validation.to_numpy().tolist()


def test_a_snapshot_has_the_row_groups_that_ranks_need(tmp_path: Path) -> None:
    rows = pd.DataFrame({"user_id": np.arange(100), "item_id": np.arange(100) % 7})
    TrainingSet.from_frames(rows).write(tmp_path, row_groups=8)
    assert pq.ParquetFile(tmp_path / "train" / "part-0.parquet").num_row_groups == 8
