"""The whole DAG by Airflow, every job a spark-submit to a standalone cluster: a master and two workers on loopback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from avrec_spark.pipelines import runner

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_ID = "cluster-1"


@pytest.fixture(scope="module")
def submitted(cluster, airflow_environment, world12, tmp_path_factory):
    """The lakehouse that `airflow dags test` leaves."""
    root = tmp_path_factory.mktemp("cluster-lakehouse")
    parameters = {
        "config": "tests/conf/small.yaml",
        "master": cluster.master,
        "properties_file": "tests/conf/cluster.conf",
        "run_id": RUN_ID,
        "set": [
            f"catalog.source={world12 / 'catalog.csv'}",
            f"events.source={world12 / 'events.jsonl'}",
            f"lakehouse.root={root}",
            # An encoder of each sense; a model that the driver fits and one that ranks fit: the tests of the daily
            # pipeline have more.
            "features.encoders=[palette, librosa, e5-text]",
            "train.models=[popular, fusion]",
        ],
    }

    def airflow(*arguments, seconds):
        done = subprocess.run(
            [REPOSITORY / ".venv-airflow" / "bin" / "airflow", *arguments],
            env=airflow_environment | {"SPARK_LOCAL_IP": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]

    airflow("db", "migrate", seconds=180)
    airflow("dags", "test", "avrec_daily", "2026-11-24", "--conf", json.dumps(parameters), seconds=1800)
    return root


def test_airflow_runs_every_job_by_spark_submit(submitted):
    manifests = {path.stem: json.loads(path.read_text()) for path in (submitted / "manifests" / RUN_ID).glob("*.json")}
    assert {job: said["exit_code"] for job, said in manifests.items()} == dict.fromkeys(runner.JOBS, 0)
    assert manifests["train"]["counts"]["models"] == 2
    assert (submitted / "reports" / RUN_ID / "index.html").stat().st_size > 10_000


def test_every_job_ran_on_the_workers_of_the_cluster_and_train_on_both(submitted, cluster):
    written = sorted((submitted / "manifests" / RUN_ID).glob("*.json"), key=lambda path: path.stat().st_mtime)
    first, second = ({place.name for place in worker.glob("app-*")} for worker in cluster.workers)
    # One job after another, and Spark numbers the applications. Not each on both workers: a short one may end before
    # the second worker has freed its core. But each of two ranks needs a core, of which a worker has one.
    applications = dict(zip([path.stem for path in written], sorted(first | second), strict=True))
    assert applications["train"] in first & second


@pytest.mark.slow
def test_horovods_two_ranks_run_on_different_workers(cluster, tmp_path):
    done = cluster.submit("tests/integration/where_ranks_run.py", str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "mean of ranks: 0.5" in done.stdout
    folders = [Path((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]
    found = {worker for worker in cluster.workers for folder in folders if worker in folder.parents}
    assert found == set(cluster.workers), folders
