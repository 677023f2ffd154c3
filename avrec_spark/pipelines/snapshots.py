"""Which training set to use: rows of ops.snapshots."""

from __future__ import annotations

from pyspark.sql import Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.errors import DataError
from avrec_spark.lakehouse import Lakehouse


def latest(lakehouse: Lakehouse, run_id: str | None = None) -> Row:
    """The latest snapshot, before all others of `run_id` where that run made one. Raises `DataError` without any."""
    of_run = (F.col(c.RUN_ID) == F.lit(run_id)).desc()
    row = lakehouse.read(tables.SNAPSHOTS).orderBy(of_run, F.col(c.RECORDED_AT).desc()).first()
    if row is None:
        raise DataError("ops.snapshots is empty.", "Run the job snapshot first.")
    return row
