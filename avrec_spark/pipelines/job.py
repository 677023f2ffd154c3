"""What a job is: a value with a name, its inputs and a function; and what it is given to work with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.progress import Progress
from avrec_spark.tables import Table

if TYPE_CHECKING:
    # Spark's workers import the jobs whose functions they run, and have no need of MLflow.
    from avrec_spark.tracking import Tracking

Counts = dict[str, int]


@dataclass
class Context:
    """What a job works with. `mlflow_id` is the job's own MLflow run."""

    settings: config.Settings
    run_id: str
    job: str
    spark: SparkSession
    lakehouse: Lakehouse
    tracking: Tracking
    progress: Progress
    mlflow_id: str = ""
    # What the job wants in its manifest beside its counts.
    facts: dict[str, object] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.progress.note(self.job, text)

    def quarantine(self, refused: DataFrame) -> int:
        """Record refused rows (source, key, reason, detail, original, retryable); returns how many."""
        reasons = refused.groupBy(c.SOURCE, c.REASON, c.RETRYABLE).count().collect()
        count = sum(row["count"] for row in reasons)
        if count:
            worst: Counter[str] = Counter()
            for row in reasons:
                worst[row[c.REASON]] += row["count"]
            self.note(f"{count:,} in quarantine: " + ", ".join(f"{reason} {n:,}" for reason, n in worst.most_common()))
            self.facts["quarantined_from"] = sorted({row[c.SOURCE] for row in reasons})
            self.facts["retries_due"] = sum(row["count"] for row in reasons if row[c.RETRYABLE])
        if count or not self.lakehouse.exists(tables.QUARANTINE):
            rows = refused.withColumns({c.RUN_ID: F.lit(self.run_id), c.RECORDED_AT: F.current_timestamp()})
            rows = rows.dropDuplicates([c.RUN_ID, c.SOURCE, c.KEY])
            self.lakehouse.merge(tables.QUARANTINE, rows, insert_only=True)
        return count


@dataclass(frozen=True)
class Job:
    """One stage of the flow.

    `sections` are the settings and `reads` the tables that its result depends on: with the same values and versions a
    run id is not worked on twice. `sources` fingerprints what lies outside the lakehouse;
    `check` refuses impossible settings before Spark starts. Where `skips` says so, another run with the same inputs has
    nothing to do either, as long as the tables that the job `writes` are as its last run left them.
    """

    name: str
    run: Callable[[Context], Counts]
    sections: tuple[str, ...]
    reads: tuple[Table, ...] = ()
    sources: Callable[[config.Settings], Mapping[str, str]] = field(default=lambda settings: {})
    check: Callable[[config.Settings], None] = field(default=lambda settings: None)
    writes: tuple[Table, ...] = ()
    skips: Callable[[config.Settings], bool] = field(default=lambda settings: False)
