"""Kafka topics as a source of events: kafka://host:port[,host:port…]/topic[,topic…].

Spark reads them; their offsets lie in the query's checkpoint. What brokers ask for before they let one in is said in
the environment only, in Kafka's own words: KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_… are its properties
security.protocol, sasl.… and ssl.….
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from pyspark.errors import AnalysisException, StreamingQueryException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import session
from avrec_spark.config import EventSettings
from avrec_spark.errors import AvrecError, DataError, RetryableError, SettingsError
from avrec_spark.media.storage import protocol_of, redacted

_SOURCE = re.compile(r"kafka://(?P<servers>[^\s/?#@]+)/(?P<topics>[\w.,-]+)", re.ASCII)
_SECURITY = ("KAFKA_SECURITY_", "KAFKA_SASL_", "KAFKA_SSL_")


class Topics(NamedTuple):
    """Brokers and topics, each joined by commas as Kafka's clients want them."""

    servers: str
    topics: str


def is_kafka(source: str | None) -> bool:
    return source is not None and protocol_of(source) == "kafka"


def parse(source: str) -> Topics:
    """Brokers and topics of a source.

    >>> parse("kafka://one:9092,two:9092/events")
    Topics(servers='one:9092,two:9092', topics='events')
    >>> parse("kafka://one:9092")
    Traceback (most recent call last):
    avrec_spark.errors.SettingsError: events.source is kafka://one:9092, which names no topic of Kafka. Write kafka://...
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise SettingsError(
            f"events.source is {redacted(source)}, which names no topic of Kafka.",
            "Write kafka://host:port[,host:port]/topic[,topic]; credentials belong in the environment (KAFKA_SASL_…).",
        )
    return Topics(**match.groupdict())


def check(settings: EventSettings) -> None:
    """Raises `SettingsError` for what cannot be done with topics."""
    parse(str(settings.source))
    if settings.mode == "batch":
        raise SettingsError(
            "events.mode=batch reads files, and events.source is a topic of Kafka.",
            "Take what is there with --set events.mode=available-now, or follow it with events.mode=continuous.",
        )
    if settings.format not in (None, "json"):
        raise SettingsError(
            f"events.format={settings.format} is for files: a record of Kafka holds one event in JSON.",
            "Leave events.format out.",
        )


def security(environment: Mapping[str, str]) -> dict[str, str]:
    """The client properties that the environment sets.

    >>> security({"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_HEAP_OPTS": "-Xmx1g"})
    {'sasl.mechanism': 'PLAIN'}
    """
    named = {name: value for name, value in environment.items() if name.startswith(_SECURITY)}
    return {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in named.items()}


def records(spark: SparkSession, settings: EventSettings) -> DataFrame:
    """The stream of records: source (with topic and partition), row (the offset) and record (the text)."""
    servers, topics = parse(str(settings.source))
    properties = security(os.environ) | {
        "bootstrap.servers": servers,
        # What a producer has taken back is no event.
        "isolation.level": "read_committed",
    }
    stream = (
        spark.readStream.format("kafka")
        .options(**{f"kafka.{name}": value for name, value in properties.items()})
        .option("subscribe", topics)
        .option("startingOffsets", settings.stream.starting_offsets)
        .option("maxOffsetsPerTrigger", settings.stream.records_per_trigger)
        .option("failOnDataLoss", settings.stream.fail_on_data_loss)
    )
    try:
        loaded = stream.load()
    except AnalysisException as error:
        if "kafka" not in str(error).lower():
            raise
        raise AvrecError(
            "This Spark has no JARs of Kafka.",
            f"Start it with --packages {session.KAFKA['spark.jars.packages']}, or put them into spark.jars_dir.",
        ) from None
    partition = F.concat_ws("/", F.lit(f"kafka://{servers}"), "topic", "partition")
    text = F.col("value").cast("string")
    return loaded.select(partition.alias(c.SOURCE), F.col("offset").alias(c.ROW), text.alias(c.RECORD))


def place() -> Column:
    """A record's topic, partition and offset, as kafka://host:port/topic/partition/offset."""
    return F.concat_ws("/", c.SOURCE, c.ROW)


def named(failure: StreamingQueryException, source: str) -> AvrecError | None:
    """An error of Kafka as one of ours, without its text, which may hold what was sent; None where it is another's."""
    if "KAFKA_DATA_LOSS" in str(failure):
        return DataError(
            f"Records of {source} are gone that were not taken yet.",
            "Go on with what is left by --set events.stream.fail_on_data_loss=false, and let brokers keep it longer.",
        )
    classes = re.findall(r"org\.apache\.kafka\.common\.[\w.]*?(\w+(?:Exception|Error))", str(failure))
    if "UnknownTopicOrPartitionException" in classes:
        return DataError(f"A topic of {source} does not exist.", "Create it, or correct events.source.")
    if not classes:
        return None
    refused = re.search("Authentication|Authorization|Config", classes[-1])
    kind = AvrecError if refused else RetryableError
    return kind(
        f"{source} cannot be read: {classes[-1]}.",
        "Check that the brokers can be reached from here, and KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_… in "
        "the environment.",
    )
