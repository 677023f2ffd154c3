"""Every job by spark-submit against a standalone cluster: a master and two workers on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avrec_spark.pipelines import runner

RUN_ID = "cluster-1"


@pytest.fixture(scope="session")
def submitted(cluster, world12, tmp_path_factory):
    """Every job in order, each its own spark-submit; stops at the first that fails."""
    root = tmp_path_factory.mktemp("cluster-lakehouse")
    sources = [f"catalog.source={world12 / 'catalog.csv'}", f"events.source={world12 / 'events.jsonl'}"]
    words = [word for setting in (*sources, f"lakehouse.root={root}") for word in ("--set", setting)]
    for job in runner.JOBS:
        done = cluster.submit(f"jobs/{job}.py", "--config", "tests/conf/small.yaml", "--run-id", RUN_ID, *words)
        assert done.returncode == 0, f"{job}: {done.stderr[-4000:]}"
    return root


def test_every_job_runs_by_spark_submit(submitted):
    manifests = {path.stem: json.loads(path.read_text()) for path in (submitted / "manifests" / RUN_ID).glob("*.json")}
    assert {job: said["status"] for job, said in manifests.items()} == dict.fromkeys(runner.JOBS, "done")
    assert manifests["train"]["counts"]["models"] == 6
    assert Path(submitted, "reports", RUN_ID, "index.html").is_file()


def test_horovods_two_ranks_run_on_different_workers(cluster, tmp_path):
    done = cluster.submit("tests/integration/where_ranks_run.py", str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "mean of ranks: 0.5" in done.stdout
    folders = [Path((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]
    found = {worker for worker in cluster.workers for folder in folders if worker in folder.parents}
    assert found == set(cluster.workers), folders
