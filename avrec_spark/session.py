"""The SparkSession: the one that is already there, a cluster's, or an embedded one.

A notebook or a test that has a session keeps it; under spark-submit the master comes from the command line; otherwise
Spark starts inside this process with Delta Lake, sized for one machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from avrec_spark.config import SparkSettings
from avrec_spark.errors import MissingPathError

DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

# What Spark needs to read Kafka, beside what it has. Not every mirror of Maven has all parts of the later 4.0.x; the
# client that comes with this one has CVE-2025-27817.
KAFKA = {
    "spark.jars.packages": "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0,org.apache.kafka:kafka-clients:3.9.1",
    "spark.jars.excludes": "org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime",
}

COMMON = {
    # One meaning for a timestamp, whatever the zone of the machine.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.showConsoleProgress": "false",
}

# The defaults are made for clusters: a table of one row would be read by 50 tasks.
EMBEDDED = {
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    # To find files that a filter rules out takes a Spark job a table and query: more than reading them from one disk.
    "spark.databricks.delta.stats.skipping": "false",
    # A run has some hundreds of generated classes; with the default of 100 all are compiled again in each run.
    "spark.sql.codegen.cache.maxEntries": "2000",
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "2g",
    # A short run on few cores spends its time compiling: the quick compiler saves a quarter of it.
    "spark.driver.extraJavaOptions": " ".join(
        (
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
        )
    ),
}


def get(settings: SparkSettings, kafka: bool = False) -> SparkSession:
    """The session of this process; started on first use.

    An active session (a notebook's, a test's) is returned as it is. With `kafka` a new one resolves what it needs to
    read Kafka, which Ivy keeps. Raises `MissingPathError` where `spark.jars_dir` names no folder.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    conf = DELTA | COMMON | _place(settings) | _jars(settings, kafka) | settings.conf
    builder = SparkSession.builder.appName(settings.app_name)
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def is_submitted() -> bool:
    """Whether spark-submit started this process and so has already chosen the master."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _place(settings: SparkSettings) -> dict[str, str]:
    if is_submitted():
        return {} if settings.master is None else {"spark.master": settings.master}
    # Workers must run this interpreter, with these libraries.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if settings.master is not None:
        place = {"spark.master": settings.master}
        return (EMBEDDED | place) if settings.master.startswith("local") else place
    # Two slots at least, one a rank; the 4 lets a failed task be tried again, which plain local[n] never does.
    slots = max(2, os.cpu_count() or 2)
    return EMBEDDED | {"spark.master": f"local[{slots},4]"}


def _jars(settings: SparkSettings, kafka: bool) -> dict[str, str]:
    if settings.jars_dir is None:
        return KAFKA if kafka else {}
    folder = Path(settings.jars_dir)
    if not folder.is_dir():
        raise MissingPathError("spark.jars_dir", settings.jars_dir)
    return {"spark.jars": ",".join(sorted(str(jar.absolute()) for jar in folder.glob("*.jar")))}
