"""The operator against a spark-submit that does what the test says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

SPARK_SUBMIT = """#!/bin/sh
printf '%s\\n' "$@" > "$SEEN/arguments"
printf '%s\\n' "$SPARK_HOME" "$PYSPARK_PYTHON" "$PYSPARK_DRIVER_PYTHON" "$PWD" > "$SEEN/environment"
echo 'a line of the log'
if [ -n "$SAY" ]; then echo "$SAY" > "$MANIFEST"; fi
if [ -n "$HANG" ]; then sleep 600 & echo $! > "$SEEN/child.part"; mv "$SEEN/child.part" "$SEEN/child"; wait; fi
exit "$CODE"
"""

# Every case in one process: starting Airflow costs more than all of them.
SCRIPT = """
import os, pathlib, threading, time
from avrec_operator import JobOperator

PARAMS = {"config": "conf/a.yaml", "master": None, "deploy_mode": "client", "properties_file": None, "root": None,
          "set": [], "run_id": None}
seen, root = pathlib.Path(os.environ["SEEN"]), pathlib.Path(os.environ["ROOT"])

def attempt(code=0, params={}, say="", run="scheduled__2026-11-24T00:00:00+00:00"):
    os.environ |= {"CODE": str(code), "SAY": say, "MANIFEST": str(root / "manifests" / "r1" / "train.json")}
    try:
        outcome = JobOperator(job="train").execute({"params": PARAMS | params, "run_id": run})
    except Exception as error:
        outcome = [type(error).__name__, str(error)]
    return outcome

answer = {str(code): attempt(code) for code in (0, 2, 202, 203, 1)}
answer["plain arguments"] = (seen / "arguments").read_text().splitlines()
answer["environment"] = (seen / "environment").read_text().splitlines()
attempt(0, {"master": "local[2,4]", "properties_file": "p.conf", "set": ["a.b=1", "c.d=[2, 3]"], "run_id": "mine"})
answer["all arguments"] = (seen / "arguments").read_text().splitlines()

answer["cluster without root"] = attempt(0, {"deploy_mode": "cluster"})
cluster = {"deploy_mode": "cluster", "root": str(root), "run_id": "r1"}
(root / "manifests" / "r1").mkdir(parents=True)
answer["cluster, no manifest"] = attempt(0, cluster)
answer["cluster, manifest says 202"] = attempt(1, cluster, '{"exit_code": 202, "seconds": 1}')
answer["cluster, old manifest, driver lost"] = attempt(1, cluster)
answer["cluster, manifest says 203"] = attempt(1, cluster, '{"exit_code": 203, "seconds": 2}')
answer["cluster, manifest says 0"] = attempt(0, cluster, '{"exit_code": 0, "seconds": 3}')
answer["cluster, done before"] = attempt(0, cluster)

os.environ |= {"HANG": "1", "CODE": "0", "SAY": ""}
operator, ended = JobOperator(job="train"), []
def hang():
    try:
        operator.execute({"params": PARAMS, "run_id": "r"})
    except Exception as error:
        ended.append(type(error).__name__)
thread = threading.Thread(target=hang)
thread.start()
while not (seen / "child").exists():
    time.sleep(0.05)
operator.on_kill()
thread.join(timeout=60)
child = (seen / "child").read_text().strip()
state = pathlib.Path("/proc", child, "stat")
alive = state.exists() and state.read_text().rsplit(")")[1].split()[0] != "Z"
answer["killed"] = {"ended": ended, "child alive": alive}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    spark_submit = home / "spark" / "bin" / "spark-submit"
    spark_submit.parent.mkdir(parents=True)
    spark_submit.write_text(SPARK_SUBMIT)
    spark_submit.chmod(0o755)
    (home / "seen").mkdir()
    (home / "lakehouse").mkdir()
    return home


@pytest.fixture(scope="module")
def answer(in_airflow: Any, home: Path) -> Any:
    return in_airflow(
        SCRIPT,
        {
            "AVREC_HOME": str(home),
            "AVREC_PYTHON": sys.executable,
            "AVREC_SPARK_HOME": str(home / "spark"),
            "SEEN": str(home / "seen"),
            "ROOT": str(home / "lakehouse"),
        },
    )


def test_a_job_that_ends_well_returns_the_run_id_made_of_the_dag_run(answer: Any) -> None:
    assert answer["0"] == "scheduled__2026-11-24T00-00-00-00-00"


@pytest.mark.parametrize("code", [2, 202])
def test_a_failure_that_a_retry_cannot_help_fails_for_good(answer: Any, code: int) -> None:
    kind, text = answer[str(code)]
    assert kind == "AirflowFailException"
    assert f"exit code {code}: a retry cannot help" in text


@pytest.mark.parametrize("code", [203, 1])
def test_a_failure_that_a_retry_may_help_is_retried(answer: Any, code: int) -> None:
    kind, text = answer[str(code)]
    assert kind == "AirflowException"
    assert f"exit code {code}: a retry may help" in text


def test_options_that_are_not_given_are_left_to_spark_submit(answer: Any, home: Path) -> None:
    assert answer["plain arguments"] == [
        "--deploy-mode",
        "client",
        str(home / "jobs" / "train.py"),
        "--config",
        "conf/a.yaml",
        "--run-id",
        "scheduled__2026-11-24T00-00-00-00-00",
    ]


def test_every_parameter_reaches_the_command_line(answer: Any, home: Path) -> None:
    assert answer["all arguments"] == [
        *("--master", "local[2,4]", "--deploy-mode", "client", "--properties-file", "p.conf"),
        *(str(home / "jobs" / "train.py"), "--config", "conf/a.yaml", "--run-id", "mine"),
        *("--set", "a.b=1", "--set", "c.d=[2, 3]"),
    ]


def test_the_child_sees_the_platforms_spark_and_python_in_the_checkout(answer: Any, home: Path) -> None:
    assert answer["environment"] == [str(home / "spark"), sys.executable, sys.executable, str(home)]


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("cluster, manifest says 202", "AirflowFailException"),
        ("cluster, manifest says 203", "AirflowException"),
        ("cluster, no manifest", "AirflowException"),
        ("cluster, old manifest, driver lost", "AirflowException"),
    ],
)
def test_on_a_cluster_the_manifest_says_whether_to_retry(answer: Any, case: str, outcome: str) -> None:
    assert answer[case][0] == outcome


@pytest.mark.parametrize("case", ["cluster, manifest says 0", "cluster, done before"])
def test_on_a_cluster_a_job_is_done_when_its_manifest_says_so(answer: Any, case: str) -> None:
    assert answer[case] == "r1"


def test_on_a_cluster_the_lakehouse_must_be_named(answer: Any) -> None:
    kind, text = answer["cluster without root"]
    assert kind == "AirflowFailException"
    assert "needs the parameter root" in text


def test_killing_the_task_ends_everything_that_spark_submit_started(answer: Any) -> None:
    assert answer["killed"] == {"ended": ["AirflowException"], "child alive": False}
