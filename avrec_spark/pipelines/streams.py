"""A folder that keeps filling: each of its files is taken into bronze.events once, by Structured Streaming.

The stream only finds the files; a micro-batch reads them as a batch job would, so that both give the same rows and
ids. The checkpoint lies in the lakehouse. A micro-batch that was interrupted runs again with the same files, and
bronze takes each record once, by its event id: nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from avrec_spark.pipelines.job import Context

# A file that is moved here with an old date is as new as any other.
_OPTIONS = {"recursiveFileLookup": "true", "maxFileAge": "36500d"}
_SCHEMA = "path string, modificationTime timestamp, length bigint, content binary"

Take = Callable[[set[str]], None]


def take_available(context: Context, source: str, take: Take) -> None:
    """Give `take` the names of the files that came since the last time, in micro-batches; return when all are taken."""
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
    """One query over the names of files. `taken` counts the micro-batches that brought any."""

    def __init__(self, context: Context, source: str, take: Take) -> None:
        self._context, self._source, self._take = context, source, take
        self._failure: Exception | None = None
        self._query: StreamingQuery
        self.taken = 0
        self.last_arrival = time.monotonic()

    def start(self, **trigger: Any) -> None:
        spark, settings = self._context.spark, self._context.settings.events.stream
        place = hashlib.sha256(self._source.rstrip("/").encode()).hexdigest()[:16]
        # Of a binary file nothing is read but what is selected.
        names = spark.readStream.format("binaryFile").schema(_SCHEMA).options(**_OPTIONS)
        names = names.option("maxFilesPerTrigger", settings.files_per_trigger)
        self._query = (
            names.load(self._source)
            .select("path")
            .writeStream.foreachBatch(self._micro_batch)
            .option("checkpointLocation", self._context.lakehouse.path("checkpoints", "events", place))
            .trigger(**trigger)
            .start()
        )

    def _micro_batch(self, names: DataFrame, number: int) -> None:
        try:
            self._take({row["path"] for row in names.collect()})
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
            raise (self._failure or error) from None

    def stop(self) -> None:
        self._query.stop()
