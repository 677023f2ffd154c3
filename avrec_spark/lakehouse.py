"""Delta tables by value: read, append, merge, replace; and the plain files that lie beside them.

The only module that knows Delta. A table lies at `<root>/<layer>/<table>`, readable by any Delta reader (no deletion
vectors).
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import fsspec
from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType

from avrec_spark.errors import DataError, LakehouseError, MissingTableError
from avrec_spark.tables import ID, Table

_ATTEMPTS = 5
# The file of a commit in a table's log.
_COMMIT = re.compile(r"\d{20}\.json")


class Lakehouse:
    """The tables and files under one root, a local path or a URI that Spark and fsspec both know."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.fs, self._fs_root = fsspec.core.url_to_fs(root)
        self.root = self._fs_root if "://" not in root or root.startswith("file:") else root.rstrip("/")

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def table_path(self, table: Table) -> str:
        return self.path(table.layer, table.name)

    def check_writable(self) -> None:
        """Raises `LakehouseError` where nothing can be written under the root."""
        check_writable(self.root)

    # -- reading -----------------------------------------------------------------------------------------------------

    def exists(self, table: Table) -> bool:
        return DeltaTable.isDeltaTable(self.spark, self.table_path(table))

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """The table, now or as of a version. Raises `MissingTableError` where no job has written it."""
        if not self.exists(table):
            raise MissingTableError(table.full_name, self.root, table.writer)
        return self._load(table, version)

    def read_or_empty(self, table: Table) -> DataFrame:
        """The table, or no rows with its columns (ids as strings) where it does not exist yet."""
        if self.exists(table):
            return self._load(table)
        schema = ", ".join(f"`{name}` {'string' if kind == ID else kind}" for name, kind in table.columns.items())
        return self.spark.createDataFrame([], schema)

    def _load(self, table: Table, version: int | None = None) -> DataFrame:
        return read_delta(self.spark, self.table_path(table), version)

    def version(self, table: Table) -> int | None:
        """The latest Delta version; None where the table does not exist.

        Read from the names in the table's log, which the Delta protocol numbers: a query of the history costs a second.
        """
        log = self.path(table.layer, table.name, "_delta_log")
        self.fs.invalidate_cache(log)
        try:
            names = [name.rsplit("/", 1)[-1] for name in self.fs.ls(log, detail=False)]
        except FileNotFoundError:
            return None
        return max((int(name[:-5]) for name in names if _COMMIT.fullmatch(name)), default=None)

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, table: Table, frame: DataFrame) -> None:
        """Add rows."""
        self._write(table, frame, "append")

    def replace(self, table: Table, frame: DataFrame) -> None:
        """Make the table hold exactly these rows; the earlier ones remain readable by version."""
        self._write(table, frame, "overwrite")

    def merge(self, table: Table, frame: DataFrame, insert_only: bool = False, if_differs: str | None = None) -> None:
        """Insert rows whose key is new and, unless `insert_only`, update the others; idempotent.

        With `if_differs` only those are updated that have another value in that column. Two rows of one key in `frame`
        are an error of the caller; Delta refuses them.
        """
        if not self.exists(table):
            self._write(table, frame, "append")
            return
        frame = self._conform(table, frame)

        def commit() -> None:
            target = DeltaTable.forPath(self.spark, self.table_path(table)).alias("old")
            merge = target.merge(frame.alias("new"), _same(table.key))
            if not insert_only:
                merge = merge.whenMatchedUpdateAll(f"NOT ({_same([if_differs])})" if if_differs else None)
            merge.whenNotMatchedInsertAll().execute()

        self._retried(table, commit)

    def replace_groups(self, table: Table, frame: DataFrame, groups: DataFrame) -> None:
        """Replace all rows of some groups: delete those that match `groups` on its columns, then append `frame`.

        Two commits; a caller that fails in between runs again and ends in the same state.
        """
        if self.exists(table):

            def commit() -> None:
                target = DeltaTable.forPath(self.spark, self.table_path(table)).alias("old")
                target.merge(groups.distinct().alias("new"), _same(groups.columns)).whenMatchedDelete().execute()

            self._retried(table, commit)
        self._write(table, frame, "append")

    def _write(self, table: Table, frame: DataFrame, mode: str) -> None:
        frame = self._conform(table, frame)

        def commit() -> None:
            writer = frame.write.format("delta").mode(mode).option("delta.enableDeletionVectors", "false")
            if mode == "overwrite":
                writer = writer.option("overwriteSchema", "true")
            writer.save(self.table_path(table))

        self._retried(table, commit)

    def _conform(self, table: Table, frame: DataFrame) -> DataFrame:
        """The table's columns in order and type; absent ones are null, ids keep their kind (integer or string)."""
        existing = dict(self._load(table).dtypes) if self.exists(table) else {}

        def column(name: str, kind: str) -> Column:
            if name not in frame.columns:
                return F.lit(None).cast(existing.get(name, "string") if kind == ID else kind).alias(name)
            if kind == ID:
                kind = "bigint" if isinstance(frame.schema[name].dataType, IntegralType) else "string"
                if existing.get(name, kind) != kind:
                    raise DataError(
                        f"{table.full_name} in {self.root} holds {name} as {existing[name]}, the new rows as {kind}.",
                        "Keep one type of id a lakehouse: change the source, or choose another lakehouse.root.",
                    )
            return F.col(name).cast(kind).alias(name)

        return frame.select([column(name, kind) for name, kind in table.columns.items()])

    def _retried(self, table: Table, commit: Callable[[], None]) -> None:
        """Run a commit again, a little later, when another writer was faster."""
        for attempt in range(_ATTEMPTS):
            try:
                commit()
                return
            except DeltaConcurrentModificationException as error:
                if attempt == _ATTEMPTS - 1:
                    raise LakehouseError(
                        f"{table.full_name} was changed by other writers {_ATTEMPTS} times in a row.",
                        "Let one run at a time write a lakehouse.",
                    ) from error
                time.sleep(random.uniform(0.2, 1.0) * 2**attempt)
            except AnalysisException as error:
                raise LakehouseError(
                    f"{table.full_name} in {self.root} cannot be written: {error}.",
                    "If another version of the platform wrote this lakehouse, choose a new lakehouse.root.",
                ) from error

    # -- plain files -------------------------------------------------------------------------------------------------

    def write_text(self, text: str, *parts: str) -> str:
        """Write a UTF-8 file under the root; returns its path."""
        path = self.path(*parts)
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with self.fs.open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def is_file(self, *parts: str) -> bool:
        return bool(self.fs.isfile(self.path(*parts)))

    def remove(self, *parts: str) -> None:
        """Delete a plain file or folder under the root; nothing where there is none."""
        path = self.path(*parts)
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)

    def write_json(self, value: Any, *parts: str) -> str:
        return self.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", *parts)

    def read_json(self, *parts: str) -> Any | None:
        """What `write_json` wrote; None where there is no such file."""
        try:
            with self.fs.open(self.path(*parts), "r", encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None


def read_delta(spark: SparkSession, path: str, version: int | None = None) -> DataFrame:
    """A Delta table by its place, in a lakehouse or anywhere else."""
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(path)


def check_writable(root: str) -> None:
    """Try to write under a root, before anything else is started; raises `LakehouseError` naming the path."""
    fs, path = fsspec.core.url_to_fs(root)
    probe = f"{path}/.write-test-{random.getrandbits(64):x}"
    try:
        fs.makedirs(path, exist_ok=True)
        with fs.open(probe, "w") as file:
            file.write("")
        fs.rm_file(probe)
    except OSError as error:
        raise LakehouseError(
            f"The lakehouse {path} cannot be written: {error.strerror or error}.",
            "Correct the permissions, or choose another place with --set lakehouse.root=PATH.",
        ) from None


def _same(columns: tuple[str, ...] | list[str]) -> str:
    return " AND ".join(f"old.`{name}` <=> new.`{name}`" for name in columns)
