"""The whole flow once a day: every job of the platform, with the dependencies that its tables really have.

Put this folder on Airflow's DAG path (or link both files there) and set AVREC_HOME to the checkout. Retries obey the
jobs' exit codes (see JobOperator). The run id comes from the DAG run: clearing a task repeats only what is not done.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import DAG, Param

sys.path.insert(0, str(Path(__file__).resolve().parent))
from avrec_operator import JobOperator

# Each job after those whose tables it reads.
AFTER: dict[str, list[str]] = {
    "catalog": [],
    "events": ["catalog"],
    "features": ["catalog"],
    "snapshot": ["events", "features"],
    "train": ["snapshot"],
    "evaluate": ["train"],
    "promote": ["evaluate"],
    "recommend": ["promote"],
    "neighbours": ["features", "train"],
    "labels": ["features"],
    "report": ["recommend", "neighbours", "labels"],
}

with DAG(
    dag_id="avrec_daily",
    description="From raw media and behaviour to evaluated recommendations",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017 - Airflow may run an older Python
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 3,
        "max_retry_delay": timedelta(minutes=30),
    },
    params={
        "config": Param("conf/default.yaml", type="string", description="settings file, relative to AVREC_HOME"),
        "master": Param(None, type=["null", "string"], description="Spark master; null: what the properties say"),
        "deploy_mode": Param("client", enum=["client", "cluster"], description="where the driver runs"),
        "properties_file": Param(None, type=["null", "string"], description="e.g. conf/spark/cluster.conf"),
        "root": Param(None, type=["null", "string"], description="lakehouse.root; needed in deploy mode cluster"),
        "set": Param([], type="array", items={"type": "string"}, description="settings as key=value"),
        "run_id": Param(None, type=["null", "string"], description="null: made of the DAG run's id"),
    },
    tags=["avrec"],
) as dag:
    tasks = {job: JobOperator(job=job) for job in AFTER}
    for job, upstream in AFTER.items():
        tasks[job].set_upstream([tasks[name] for name in upstream])
