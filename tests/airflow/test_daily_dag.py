"""The daily DAG: what it imports and what waits for what. tests/integration runs the whole of it on a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from avrec_spark.pipelines.runner import JOBS

SCRIPT = """
import sys
import avrec_daily
from avrec_operator import usable_run_id

answer = {
    "imported": sorted({name.split(".")[0] for name in sys.modules} & {"pyspark", "avrec_spark", "delta", "torch"}),
    "upstream": {name: sorted(task.upstream_task_ids) for name, task in avrec_daily.tasks.items()},
    "retries": sorted({task.retries for task in avrec_daily.tasks.values()}),
    "catchup": avrec_daily.dag.catchup,
    "max_active_runs": avrec_daily.dag.max_active_runs,
    "run ids": [usable_run_id(text) for text in ("manual__2026-11-24T01:02:03+00:00", "_mine/yours ü")],
}
"""


@pytest.fixture(scope="module")
def answer(in_airflow: Any) -> Any:
    return in_airflow(SCRIPT)


def test_parsing_imports_neither_spark_nor_the_package(answer: Any) -> None:
    assert answer["imported"] == []


def test_every_job_waits_for_exactly_the_jobs_whose_tables_it_reads(answer: Any) -> None:
    assert answer["upstream"] == {
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
        "report": ["labels", "neighbours", "recommend"],
    }


def test_the_dag_runs_every_job_of_the_daily_pipeline(answer: Any) -> None:
    assert sorted(answer["upstream"]) == sorted(JOBS)


def test_runs_do_not_overlap_and_failures_are_retried(answer: Any) -> None:
    assert (answer["catchup"], answer["max_active_runs"], answer["retries"]) == (False, 1, [2])


def test_a_dag_runs_id_becomes_a_usable_run_id(answer: Any) -> None:
    assert answer["run ids"] == ["manual__2026-11-24T01-02-03-00-00", "mine-yours--"]
