"""What every model trains on: indexed interactions, item features, and the Parquet snapshot they lie in.

| part of a snapshot folder | columns |
|---|---|
| train/, validation/, test/ | user_index, item_index, weight, timestamp (epoch seconds) |
| sequences/, where a model reads it | as train/, in order of user and time; a row group holds whole users |
| users/, items/ | user_index and user_id; item_index and item_id |
| features/MODALITY/ | item_index, vector |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.dataset.index import IdIndex
from avrec_spark.errors import DataError, MissingColumnsError


@dataclass(frozen=True)
class FeatureMatrix:
    """Vectors of one modality, aligned to an item index: values float32[n_items, d], present bool[n_items].

    Rows of absent items are zero.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, name: str, positions: NDArray[np.int64], vectors: pd.Series[Any], n_items: int) -> FeatureMatrix:
        """Vectors put at their items' positions. Raises `DataError` for unequal widths and for NaN."""
        widths = set(map(len, vectors))
        if len(widths) != 1:
            raise DataError(
                f"The {name} vectors have different widths ({', '.join(map(str, sorted(widths))) or 'no rows'}).",
                "Use the vectors of one encoder and version.",
            )
        # What np.stack does, without a view of each vector.
        rows = np.concatenate(list(vectors)).reshape(len(vectors), -1).astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            raise DataError(f"The {name} vectors hold NaN or infinite values.", "Leave such items out, or encode anew.")
        values = np.zeros((n_items, widths.pop()), np.float32)
        values[positions] = rows
        present = np.zeros(n_items, np.bool_)
        present[positions] = True
        return cls(values, present)


@dataclass(frozen=True)
class TrainingSet:
    """Indexed interactions (n rows) and item features.

    `user_index` and `item_index` are int64[n], `weight` float32[n], `timestamp` float64[n] in epoch seconds.
    `items` holds the interactions' items and those that only have features. `validation` are held-out index pairs.
    `path` is the snapshot folder that holds the same, where there is one.
    """

    users: IdIndex
    items: IdIndex
    user_index: NDArray[np.int64]
    item_index: NDArray[np.int64]
    weight: NDArray[np.float32]
    timestamp: NDArray[np.float64]
    features: dict[str, FeatureMatrix] = field(default_factory=dict)
    validation: pd.DataFrame | None = None
    path: str | None = None

    @classmethod
    def from_frames(
        cls,
        interactions: pd.DataFrame,
        item_features: Mapping[str, pd.DataFrame] | None = None,
        seed: int = 42,
        validation: pd.DataFrame | None = None,
    ) -> TrainingSet:
        """From columns user_id, item_id and optionally weight (else 1) and timestamp (else 0).

        A timestamp is a time, a text in ISO 8601, or epoch seconds. Features have columns item_id, vector; validation
        has user_id, item_id, and pairs of unknown users or items are left out of it. Raises `MissingColumnsError`,
        and `DataError` for weights or times that are no finite numbers, or negative weights.
        """
        missing = {c.USER_ID, c.ITEM_ID} - set(interactions.columns)
        if missing:
            raise MissingColumnsError("The interactions", missing, interactions.columns)
        features = item_features or {}
        ids = [interactions[c.ITEM_ID].to_numpy(), *(frame[c.ITEM_ID].to_numpy() for frame in features.values())]
        users = IdIndex.from_ids(interactions[c.USER_ID].to_numpy(), seed)
        items = IdIndex.from_ids(np.concatenate(ids), seed)
        n = len(interactions)
        weight = interactions[c.WEIGHT].to_numpy(np.float32) if c.WEIGHT in interactions else np.ones(n, np.float32)
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise DataError("Some interactions have a negative weight or none.", "Leave them out, or weigh them 0.")
        return cls(
            users=users,
            items=items,
            user_index=users.encode(interactions[c.USER_ID]),
            item_index=items.encode(interactions[c.ITEM_ID]),
            weight=weight,
            timestamp=_epoch_seconds(interactions[c.TIMESTAMP]) if c.TIMESTAMP in interactions else np.zeros(n),
            # In the order in which `read` finds them: modules number their modalities.
            features={
                name: FeatureMatrix.of(name, items.encode(frame[c.ITEM_ID]), frame[c.VECTOR], len(items))
                for name, frame in sorted(features.items())
            },
            validation=None if validation is None else _known_pairs(validation, users, items),
        )

    @classmethod
    def read(cls, path: str | Path) -> TrainingSet:
        """From a snapshot folder."""
        folder = Path(path)
        users, items = (
            IdIndex(_table(folder / part).sort_values(position)[name].to_numpy())
            for part, position, name in (("users", c.USER_INDEX, c.USER_ID), ("items", c.ITEM_INDEX, c.ITEM_ID))
        )
        train = _table(folder / "train").sort_values([c.USER_INDEX, c.ITEM_INDEX])
        validation = folder / "validation"
        features = {}
        for part in sorted((folder / "features").glob("*")):
            frame = _table(part)
            positions = frame[c.ITEM_INDEX].to_numpy(np.int64)
            features[part.name] = FeatureMatrix.of(part.name, positions, frame[c.VECTOR], len(items))
        return cls(
            users=users,
            items=items,
            user_index=train[c.USER_INDEX].to_numpy(np.int64),
            item_index=train[c.ITEM_INDEX].to_numpy(np.int64),
            weight=train[c.WEIGHT].to_numpy(np.float32),
            timestamp=train[c.TIMESTAMP].to_numpy(np.float64),
            features=features,
            validation=_table(validation)[[c.USER_INDEX, c.ITEM_INDEX]] if validation.is_dir() else None,
            path=str(path),
        )

    def write(self, path: str | Path, row_groups: int = 8) -> TrainingSet:
        """Write the snapshot folder, the train part in `row_groups` row groups; returns the set with its path."""
        folder = Path(path)
        written = replace(self, path=str(path))
        written.write_part("train", np.arange(len(self.user_index)), row_groups)
        _write(pa.table({c.USER_INDEX: np.arange(len(self.users)), c.USER_ID: self.users.ids}), folder / "users")
        _write(pa.table({c.ITEM_INDEX: np.arange(len(self.items)), c.ITEM_ID: self.items.ids}), folder / "items")
        if self.validation is not None:
            _write(pa.Table.from_pandas(self.validation, preserve_index=False), folder / "validation")
        for name, matrix in self.features.items():
            positions = np.flatnonzero(matrix.present)
            vectors = pa.table({c.ITEM_INDEX: positions, c.VECTOR: list(matrix.values[positions])})
            _write(vectors, folder / "features" / name)
        return written

    def write_part(self, name: str, rows: NDArray[np.int64], row_groups: int = 8) -> None:
        """Add a part to the snapshot folder that holds these interactions, as train/ holds all of them."""
        assert self.path is not None, "a part belongs to a snapshot: write it first"
        table = pa.table(
            {
                c.USER_INDEX: self.user_index[rows],
                c.ITEM_INDEX: self.item_index[rows],
                c.WEIGHT: self.weight[rows],
                c.TIMESTAMP: self.timestamp[rows],
            }
        )
        _write(table, Path(self.path, name), -(-max(len(rows), 1) // row_groups))

    def write_sequences(self, row_groups: int = 8) -> None:
        """Add the part sequences/ to the snapshot folder, unless it has one: the train part by user, then by time.

        Interactions of one time come in order of their item's index, which is a random one.
        """
        assert self.path is not None, "sequences belong to a snapshot: write it first"
        folder = Path(self.path) / "sequences"
        if folder.is_dir():
            return
        order = np.lexsort((self.item_index, self.timestamp, self.user_index))
        users = self.user_index[order]
        table = pa.table(
            {
                c.USER_INDEX: users,
                c.ITEM_INDEX: self.item_index[order],
                c.WEIGHT: self.weight[order],
                c.TIMESTAMP: self.timestamp[order],
            }
        )
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        # Of about equal size, and no user in two of them.
        wanted = np.arange(1, row_groups) * len(users) // row_groups
        cuts = np.unique([0, *starts[np.searchsorted(starts, wanted).clip(max=len(starts) - 1)], len(users)])
        # Ranks must never see half a part.
        temporary = folder.with_name(f"_sequences-{os.getpid()}")
        temporary.mkdir()
        with pq.ParquetWriter(temporary / "part-0.parquet", table.schema) as writer:
            for start, end in pairwise(cuts):
                writer.write_table(table.slice(start, end - start), row_group_size=int(end - start))
        temporary.rename(folder)

    def held_out(self) -> pd.DataFrame:
        """The validation pairs as user_id, item_id; none where there is no validation."""
        names = [c.USER_INDEX, c.ITEM_INDEX]
        pairs = np.empty((0, 2), np.int64) if self.validation is None else self.validation[names].to_numpy(np.int64)
        return pd.DataFrame({c.USER_ID: self.users.decode(pairs[:, 0]), c.ITEM_ID: self.items.decode(pairs[:, 1])})

    def matrix(self) -> csr_matrix:
        """Users × items, weights of repeated pairs summed."""
        shape = (len(self.users), len(self.items))
        return csr_matrix((self.weight, (self.user_index, self.item_index)), shape=shape, dtype=np.float32)


def _epoch_seconds(times: pd.Series[Any]) -> NDArray[np.float64]:
    if pd.api.types.is_numeric_dtype(times):
        seconds = times.to_numpy(np.float64)
    else:
        utc = pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
        seconds = ((utc - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy(np.float64)
    unreadable = ~np.isfinite(seconds)
    if unreadable.any():
        raise DataError(
            f"{unreadable.sum()} timestamps cannot be read, the first is {times[unreadable].iloc[0]!r}.",
            "Write epoch seconds, or times like 2026-01-31T12:00:00Z.",
        )
    return seconds


def _known_pairs(pairs: pd.DataFrame, users: IdIndex, items: IdIndex) -> pd.DataFrame:
    indexed = pd.DataFrame({c.USER_INDEX: users.encode(pairs[c.USER_ID]), c.ITEM_INDEX: items.encode(pairs[c.ITEM_ID])})
    return indexed[(indexed >= 0).all(axis=1)].drop_duplicates(ignore_index=True)


def _table(folder: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(folder).to_pandas()
    return frame


def _write(table: pa.Table, folder: Path, row_group_size: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "part-0.parquet", row_group_size=row_group_size)
