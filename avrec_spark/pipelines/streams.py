"""Events that keep coming, taken by Structured Streaming: the files of a folder, or the records of Kafka topics.

What has been taken is in a checkpoint in the lakehouse. A micro-batch that was interrupted runs again with the same
files or records, and bronze takes each record once, by its event id: nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from avrec_spark.config import EventSettings
from avrec_spark.pipelines import kafka
from avrec_spark.pipelines.job import Context

# A file that is moved here with an old date is as new as any other.
_OPTIONS = {"recursiveFileLookup": "true", "maxFileAge": "36500d"}
_SCHEMA = "path string, modificationTime timestamp, length bigint, content binary"

Take = Callable[[DataFrame], None]


def take_available(context: Context, source: str, take: Take) -> None:
    """Give `take` what came since the last time, in micro-batches; return when all is taken."""
    stream = _Stream(context, source, take)
    stream.start(availableNow=True)
    stream.wait(None)


def take_continuously(context: Context, source: str, take: Take, refresh: Callable[[], object]) -> None:
    """The same until stopped, or idle for as long as the settings say; `refresh` follows what has arrived."""
    settings = context.settings.events.stream
    stream = _Stream(context, source, take)
    stream.start(processingTime=f"{settings.trigger_seconds} seconds")
    try:
        refreshed, busy_until = 0, time.monotonic()
        while True:
            stream.wait(max(1, math.ceil(settings.trigger_seconds)))
            if stream.taken > refreshed:
                refreshed = stream.taken
                refresh()
                # What came while it ran has not been looked for yet, perhaps.
                busy_until = time.monotonic()
            idle = time.monotonic() - max(stream.last_arrival, busy_until)
            if settings.stop_after_idle_seconds is not None and idle > settings.stop_after_idle_seconds:
                break
    finally:
        stream.stop()


class _Stream:
    """One query over a source. `taken` counts the micro-batches that brought anything."""

    def __init__(self, context: Context, source: str, take: Take) -> None:
        self._context, self._source, self._take = context, source, take
        self._failure: Exception | None = None
        self._query: StreamingQuery
        self.taken = 0
        self.last_arrival = time.monotonic()

    def start(self, **trigger: Any) -> None:
        arriving = kafka.records if kafka.is_kafka(self._source) else _files
        place = hashlib.sha256(self._source.rstrip("/").encode()).hexdigest()[:16]
        self._query = (
            arriving(self._context.spark, self._context.settings.events)
            .writeStream.foreachBatch(self._micro_batch)
            .option("checkpointLocation", self._context.lakehouse.path("checkpoints", "events", place))
            .trigger(**trigger)
            .start()
        )

    def _micro_batch(self, arrived: DataFrame, number: int) -> None:
        try:
            self._take(arrived)
        except Exception as error:
            self._failure = error
            raise
        self.taken += 1
        self.last_arrival = time.monotonic()

    def wait(self, seconds: int | None) -> None:
        """Until the query ends, or for so long; raises what a micro-batch raised."""
        try:
            self._query.awaitTermination(seconds)
        except StreamingQueryException as error:
            named = kafka.named(error, self._source) if kafka.is_kafka(self._source) else None
            raise (self._failure or named or error) from None

    def stop(self) -> None:
        self._query.stop()


def _files(spark: SparkSession, settings: EventSettings) -> DataFrame:
    """The stream of files: path, length and modificationTime of each. Of their content nothing is read here."""
    names = spark.readStream.format("binaryFile").schema(_SCHEMA).options(**_OPTIONS)
    names = names.option("maxFilesPerTrigger", settings.stream.files_per_trigger)
    return names.load(settings.source).select("path", "length", "modificationTime")
