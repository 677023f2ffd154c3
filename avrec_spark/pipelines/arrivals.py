"""How behaviour arrives: files, a Delta table or topics of any layout → rows of bronze.events, in their own words.

A record is identified by its own event id; else by its file and its position there; in a Delta table, whose files are
rewritten, by what it says; in a topic by its partition and its offset.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import PurePosixPath
from typing import Any

import fsspec
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, IntegralType, MapType, StringType, StructType

from avrec_spark import columns as c
from avrec_spark.config import EventSettings
from avrec_spark.errors import MissingColumnsError
from avrec_spark.lakehouse import read_delta
from avrec_spark.pipelines import kafka
from avrec_spark.pipelines.sources import SourceFile

REQUIRED = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.TIMESTAMP)
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".bz2")
_CORRUPT = "_corrupt_record"
_FILE = "file"
_PLACE = "_place"
_DELTA_LOG = "_delta_log/"
_HEADERS_AT_ONCE = 16


@dataclass(frozen=True)
class Reader:
    """Reads events of one source. `strict`: a column that is missing in all of a format's files is an error.

    Without it such a column is null, and its records are refused one by one: a stream must not stop at a broken file.
    """

    spark: SparkSession
    settings: EventSettings
    source: str
    strict: bool = True

    def read(self, files: list[SourceFile]) -> DataFrame | None:
        """Rows of tables.EVENTS of every record of the readable ones of the files; None where there are none."""
        if self.settings.format == "delta" or is_delta(files):
            rows = self._rows(read_delta(self.spark, self.source), "delta")
            return _told_apart(rows)
        groups: dict[str, list[SourceFile]] = {}
        for file in files:
            groups.setdefault(format_of(file, self.settings) or "", []).append(file)
        groups.pop("", None)
        frames = [self._rows(raw, name) for name, group in sorted(groups.items()) for raw in self._raw(name, group)]
        return _told_apart(reduce(DataFrame.unionByName, frames)) if frames else None

    def _raw(self, name: str, files: list[SourceFile]) -> list[DataFrame]:
        uris = [file.uri for file in files]
        if name == "csv":
            return self._read_csv(files)
        return [_read_json(self.spark, uris) if name == "json" else _read_parquet(self.spark, uris)]

    def _read_csv(self, files: list[SourceFile]) -> list[DataFrame]:
        """A frame for each header that occurs: an export may gain a column one day."""
        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            headers = pool.map(_first_line, [file.uri for file in files])
        groups: dict[tuple[str, str], list[str]] = {}
        for file, header in zip(files, headers, strict=True):
            tabs = _suffix(file) == ".tsv"
            groups.setdefault((self.settings.delimiter or ("\t" if tabs else ","), header), []).append(file.uri)
        frames = []
        for (delimiter, header), uris in groups.items():
            if not header:
                continue
            names = self.spark.read.csv(uris[0], header=True, sep=delimiter).columns
            # All text: an id such as 007 must not become 7.
            schema = StructType()
            for name in (*names, _CORRUPT):
                schema = schema.add(name, StringType())
            options: dict[str, Any] = {
                "header": True,
                "sep": delimiter,
                "escape": '"',
                "columnNameOfCorruptRecord": _CORRUPT,
            }
            frames.append(self.spark.read.csv(uris, schema=schema, enforceSchema=False, **options))
        return frames

    def read_records(self, records: DataFrame) -> DataFrame:
        """Rows of tables.EVENTS of every record of some topics, as kafka.records brings them."""
        # Of a list of events the parser would keep the first one only.
        text = F.when(F.col(c.RECORD).rlike(r"^\s*\{"), F.col(c.RECORD))
        event = F.from_json(text, self._schema(records.select(text)), {"columnNameOfCorruptRecord": _CORRUPT})
        raw = records.select(event.alias("event"), F.struct(c.SOURCE, c.ROW, c.RECORD).alias(_PLACE))
        raw = raw.select("event.*", _PLACE)
        rows = raw.select(*self._columns(raw), f"{_PLACE}.*", F.current_timestamp().alias(c.ARRIVED_AT))
        identified = rows.withColumn(c.EVENT_ID, F.coalesce(c.EVENT_ID, kafka.place()))
        return _told_apart(identified.withColumn(_FILE, F.col(c.SOURCE)))

    def _schema(self, texts: DataFrame) -> StructType:
        """As of a file with these lines."""
        lines = texts.dropna().rdd.map(lambda row: str(row[0]))
        return _with_corrupt(self.spark.read.json(lines, columnNameOfCorruptRecord=_CORRUPT).schema)

    def _rows(self, raw: DataFrame, name: str) -> DataFrame:
        """Records of one layout with our column names, their position (`row`) and their original text."""
        data = [F.col(f"`{column}`") for column in raw.columns if column != _CORRUPT]
        self._check(raw.select(*data), name)
        corrupt = F.col(_CORRUPT) if _CORRUPT in raw.columns else F.lit(None).cast("string")
        original = F.to_json(F.struct(*data)) if data else F.lit(None)
        positioned = raw.select(
            *self._columns(raw),
            F.lit(self.source).alias(c.SOURCE),
            F.coalesce(corrupt, original).alias(c.RECORD),
            F.current_timestamp().alias(c.ARRIVED_AT),
            F.col("_metadata.file_path").alias(_FILE),
            F.col("_metadata.file_block_start").alias("block"),
            F.monotonically_increasing_id().alias("order"),
        )
        row = F.expr(f"row_number() OVER (PARTITION BY {_FILE} ORDER BY block, `order`)") - 1
        rows = positioned.withColumn(c.ROW, row).drop("block", "order")
        place = (c.SOURCE, c.RECORD) if name == "delta" else (_FILE, c.ROW)
        return rows.withColumn(c.EVENT_ID, F.coalesce(c.EVENT_ID, F.sha2(F.concat_ws("#", *place), 256)))

    def _check(self, raw: DataFrame, name: str) -> None:
        """Required columns, and those that the settings name, have to be there."""
        if not self.strict:
            return
        named = {ours: self.settings.columns.get(ours, ours) for ours in (*REQUIRED, *self.settings.columns)}
        missing = [
            theirs
            for ours, theirs in named.items()
            if ours not in self.settings.constants and _find(raw.schema, theirs) is None
        ]
        if missing:
            raise MissingColumnsError(
                f"The events {self.source} ({name})",
                missing,
                raw.columns,
                "Rename the columns, or map them: --set events.columns.user_id=YOUR_NAME. What no column says can be "
                "a constant: --set events.constants.event_type=view.",
            )

    def _columns(self, raw: DataFrame) -> list[Column]:
        """The columns of an event under our names: ids keep their kind, anything else becomes text."""
        return [self._column(raw.schema, ours).alias(ours) for ours in c.EVENT_FIELDS]

    def _column(self, schema: StructType, ours: str) -> Column:
        constant = F.lit(self.settings.constants.get(ours)).cast("string")
        found = _find(schema, self.settings.columns.get(ours, ours))
        if found is None:
            return constant
        column, kind = found
        if ours in (c.USER_ID, c.ITEM_ID) and isinstance(kind, IntegralType):
            return column.cast("bigint")
        return F.coalesce(column.cast("string"), constant)


def is_delta(files: list[SourceFile]) -> bool:
    return any(file.relative.startswith(_DELTA_LOG) for file in files)


def format_of(file: SourceFile, settings: EventSettings) -> str | None:
    """How to read a file: as the settings say, else by its name; None where neither knows."""
    return settings.format or FORMATS.get(_suffix(file))


def _suffix(file: SourceFile) -> str:
    path = PurePosixPath(file.relative.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _first_line(uri: str) -> str:
    with fsspec.open(uri, "rb", compression="infer") as file:
        return bytes(file.readline()).decode("utf-8", "replace").strip()


def _read_json(spark: SparkSession, uris: list[str]) -> DataFrame:
    schema = _with_corrupt(spark.read.json(uris, columnNameOfCorruptRecord=_CORRUPT).schema)
    return spark.read.json(uris, schema=schema, columnNameOfCorruptRecord=_CORRUPT)


def _with_corrupt(inferred: StructType) -> StructType:
    return StructType([field for field in inferred if field.name != _CORRUPT]).add(_CORRUPT, StringType())


def _read_parquet(spark: SparkSession, uris: list[str]) -> DataFrame:
    return spark.read.option("mergeSchema", True).parquet(*uris)


def _find(schema: StructType, theirs: str) -> tuple[Column, DataType] | None:
    """A column by its name, or a value inside it by a dotted path: `client.device` of a struct or a map."""
    if theirs in schema.names:
        return F.col(f"`{theirs}`"), schema[theirs].dataType
    first, *rest = theirs.split(".")
    if first not in schema.names:
        return None
    column, kind = F.col(f"`{first}`"), schema[first].dataType
    for part in rest:
        if isinstance(kind, StructType) and part in kind.names:
            column, kind = column.getField(part), kind[part].dataType
        elif isinstance(kind, MapType):
            column, kind = column.getItem(part), kind.valueType
        else:
            return None
    return column, kind


def _told_apart(arrived: DataFrame) -> DataFrame:
    """Records that share an event id get a number each but the first, so that none hides another."""
    number = F.expr(f"row_number() OVER (PARTITION BY {c.EVENT_ID} ORDER BY {_FILE}, {c.ROW})")
    numbered = arrived.withColumn("number", number)
    event_id = F.when(F.col("number") > 1, F.concat_ws("#", c.EVENT_ID, "number")).otherwise(F.col(c.EVENT_ID))
    return numbered.withColumn(c.EVENT_ID, event_id).drop("number", _FILE)
