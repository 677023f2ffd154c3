"""Interactions and item features from files that people have: Parquet, CSV, or a Delta table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.errors import DataError, MissingColumnsError, UsageError


def read_interactions(path: Path) -> pd.DataFrame:
    """user_id, item_id and, where the file has them, weight and timestamp.

    Raises `UsageError` for a file that is not there or cannot be read, `MissingColumnsError`, and `DataError` for rows
    without an id.
    """
    rows = _read(path)
    _require(path, rows, c.USER_ID, c.ITEM_ID)
    for name in (c.USER_ID, c.ITEM_ID):
        if missing := int(rows[name].isna().sum()):
            raise DataError(f"{missing} rows of {path} have no {name}.", "Leave rows without an id out.")
    return rows[[name for name in c.INTERACTIONS if name in rows]]


def read_features(path: Path) -> pd.DataFrame:
    """item_id, vector: the file's one column of float lists, whatever its name; in CSV written `[0.1, 0.2]`."""
    rows = _read(path)
    _require(path, rows, c.ITEM_ID)
    vectors = [
        name for name in rows.columns if name != c.ITEM_ID and len(rows) and _as_vector(rows[name].iloc[0]) is not None
    ]
    if len(vectors) != 1:
        raise UsageError(
            f"{path} has {len(vectors)} columns of number lists ({', '.join(vectors) or 'none'}); one is needed.",
            f"Give one row an item with {c.ITEM_ID} and one list of numbers.",
        )
    return pd.DataFrame({c.ITEM_ID: rows[c.ITEM_ID], c.VECTOR: rows[vectors[0]].map(_as_vector)})


def read_knowledge(path: Path, kind: str) -> pd.DataFrame:
    """`categories`: item_id, categories (lists; in CSV `["a", "b"]` or `a|b`); `groups`: item_id, group; `segments`:
    user_id, segment."""
    names = {
        "categories": (c.ITEM_ID, c.CATEGORIES),
        "groups": (c.ITEM_ID, c.GROUP),
        "segments": (c.USER_ID, c.SEGMENT),
    }[kind]
    rows = _read(path)
    _require(path, rows, *names)
    rows = rows[list(names)]
    return rows.assign(**{c.CATEGORIES: rows[c.CATEGORIES].map(_as_labels)}) if kind == "categories" else rows


def same_id_types(*frames: pd.DataFrame) -> list[pd.DataFrame]:
    """The frames with each id column as text in all of them where it is text in any: CSV reads "7" as a number."""
    result = [frame.copy() for frame in frames]
    for name in (c.USER_ID, c.ITEM_ID):
        holders = [frame for frame in result if name in frame]
        if len({pd.api.types.is_numeric_dtype(frame[name]) for frame in holders}) > 1:
            for frame in holders:
                frame[name] = frame[name].astype(str)
    return result


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise UsageError(f"{path} does not exist.", "Name a Parquet file or folder, a CSV file, or a Delta table.")
    if (path / "_delta_log").is_dir():
        return _read_delta(path)
    try:
        return _read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", "Name a Parquet file or folder, or a file *.csv."
        ) from None


def _read_csv(path: Path) -> pd.DataFrame:
    """Ids are integers where all of them are written as such (`007` is not), else text; neither passes through floats,
    which hold no 64-bit integer."""
    rows = pd.read_csv(path, dtype={c.USER_ID: str, c.ITEM_ID: str})
    for name in {c.USER_ID, c.ITEM_ID} & set(rows.columns):
        if len(rows) and rows[name].str.fullmatch(r"-?(0|[1-9]\d{0,17})|[1-8]\d{18}", na=False).all():
            rows[name] = rows[name].astype(np.int64)
    return rows


def _read_delta(path: Path) -> pd.DataFrame:
    from avrec_spark import config, session
    from avrec_spark.lakehouse import read_delta

    return read_delta(session.get(config.load().spark), str(path)).toPandas()


def _require(path: Path, rows: pd.DataFrame, *names: str) -> None:
    missing = set(names) - set(rows.columns)
    if missing:
        raise MissingColumnsError(str(path), missing, map(str, rows.columns))


def _as_labels(value: Any) -> list[str]:
    """A list of labels, however a file writes it."""
    if isinstance(value, list | tuple | np.ndarray):
        return [str(label) for label in value]
    if not isinstance(value, str):
        return []
    try:
        return [str(label) for label in json.loads(value)] if value.lstrip().startswith("[") else value.split("|")
    except json.JSONDecodeError:
        return value.split("|")


def _as_vector(value: Any) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """A list of numbers as float32[d]; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        return np.asarray(value, np.float32)
    except ValueError:
        return None
