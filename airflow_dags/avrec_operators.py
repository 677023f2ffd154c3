"""The operator that runs a job of the platform through spark-submit, and the parameters that a run takes.

Imports Airflow and the standard library only: the platform's libraries live in an environment of their own, where
spark-submit finds them. Three variables of the worker's environment say where:

    AVREC_HOME     the checkout with jobs/ and conf/   (default: the folder above this one)
    AVREC_PYTHON   the interpreter of its environment  (default: .venv/bin/python there)
    SPARK_HOME     the Spark that submits              (default: the one in that environment)
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, ObjectStoragePath, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# The exit codes of avrec_spark/errors.py.
EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_FAILED = 202
EXIT_RETRYABLE = 203

MOST_RETRIES = 5
SECONDS_TO_STOP = 20

PARAMS = {
    "config": Param(os.environ.get("AVREC_CONFIG", "conf/demo.yaml"), type="string", description="settings file"),
    "set": Param([], type="array", items={"type": "string"}, description="settings that differ, each KEY=VALUE"),
    "master": Param(os.environ.get("AVREC_MASTER"), type=["null", "string"], description="spark-submit --master"),
    "deploy_mode": Param("client", enum=["client", "cluster"], description="spark-submit --deploy-mode"),
    "properties_file": Param(
        os.environ.get("AVREC_PROPERTIES_FILE"), type=["null", "string"], description="e.g. conf/spark/cluster.conf"
    ),
    "root": Param(
        os.environ.get("AVREC_ROOT"),
        type=["null", "string"],
        description="lakehouse.root, where manifests tell the exit code in cluster deploy mode",
    ),
    "retries": Param(3, type="integer", minimum=0, maximum=MOST_RETRIES, description="after a failure that may pass"),
}


class AvrecJobOperator(BaseOperator):
    """Runs `jobs/NAME.py` through spark-submit with the parameters of the DAG run.

    Exit code 0 is success; 2 and 202 fail the task for good (`AirflowFailException`); 203, and any code that no job
    gives (Spark itself failed), may pass and is retried. In cluster deploy mode, where spark-submit's own code says
    little, the code comes from the job's manifest. The run id is the DAG run's, so that a task that is run again
    repeats nothing that is done.
    """

    def __init__(self, *, job: str, **kwargs: Any) -> None:
        super().__init__(task_id=kwargs.pop("task_id", job), **kwargs)
        self.job = job
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        params, run_id = context["params"], run_id_of(context["run_id"])
        in_cluster = params["deploy_mode"] == "cluster"
        if in_cluster and not params["root"]:
            raise AirflowFailException(
                "In cluster deploy mode the exit code is read from the job's manifest: set the parameter root to the "
                "value of lakehouse.root."
            )
        before = read_manifest(params["root"], run_id, self.job) if in_cluster else None
        variables = environment()
        code = self._submit(command(self.job, run_id, params, variables["SPARK_HOME"]), variables)
        if in_cluster:
            code = outcome(code, before, read_manifest(params["root"], run_id, self.job))
        if code == EXIT_DONE:
            return
        sentence = f"The job {self.job} of run {run_id} ended with exit code {code}"
        if code in (EXIT_USAGE, EXIT_FAILED):
            raise AirflowFailException(f"{sentence}: a retry cannot help. Its log above says what to do.")
        if context["ti"].try_number > params["retries"]:
            raise AirflowFailException(f"{sentence}: it may pass, but the {params['retries']} retries are used up.")
        raise AirflowException(f"{sentence}: it may pass and is retried.")

    def on_kill(self) -> None:
        """Stop spark-submit and what it started: first politely, so that Spark gives its resources back."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    def _submit(self, arguments: list[str], variables: dict[str, str]) -> int:
        """Run the command with its output in the task's log; returns its exit code."""
        self.log.info("Running %s", " ".join(arguments))
        # A session of its own, so that on_kill reaches the JVM and its Python workers too.
        self._process = subprocess.Popen(
            arguments,
            cwd=home(),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self.log.info("%s", line.rstrip())
            return self._process.wait()
        finally:
            # A time-out or a lost connection raises out of the loop: no job stays behind.
            self.on_kill()


def home() -> Path:
    return Path(os.environ.get("AVREC_HOME", Path(__file__).resolve().parent.parent))


def environment() -> dict[str, str]:
    """The variables of spark-submit: the platform's interpreter and Spark, not those of Airflow."""
    python = Path(os.environ.get("AVREC_PYTHON", home() / ".venv" / "bin" / "python"))
    spark = spark_home(python)
    path = os.pathsep.join([str(python.parent), str(spark / "bin"), os.environ.get("PATH", os.defpath)])
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return variables | {
        "PATH": path,
        "SPARK_HOME": str(spark),
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": str(python),
    }


def spark_home(python: Path) -> Path:
    """SPARK_HOME, else the pyspark that lies beside the interpreter."""
    if "SPARK_HOME" in os.environ:
        return Path(os.environ["SPARK_HOME"])
    found = sorted(python.parent.parent.glob("lib/python*/site-packages/pyspark"))
    if not found:
        raise AirflowFailException(
            f"No Spark was found beside {python}. Run make setup in {home()}, or set AVREC_HOME, AVREC_PYTHON or "
            "SPARK_HOME in the environment of the Airflow worker."
        )
    return found[0]


def command(job: str, run_id: str, params: dict[str, Any], spark: str) -> list[str]:
    """The whole spark-submit command of a job, relative to the checkout."""
    options = {
        "--master": params["master"],
        "--deploy-mode": params["deploy_mode"],
        "--properties-file": params["properties_file"],
    }
    submit = [f"{spark}/bin/spark-submit", *pairs((name, value) for name, value in options.items() if value)]
    settings = ["--config", params["config"], "--run-id", run_id, *pairs(("--set", value) for value in params["set"])]
    return [*submit, f"jobs/{job}.py", *settings]


def pairs(options: Iterable[tuple[str, str]]) -> list[str]:
    return [part for option in options for part in option]


def run_id_of(dag_run_id: str) -> str:
    """The DAG run's id as a run id of the platform: the same each time, usable as the name of a folder anywhere.

    >>> run_id_of("scheduled__2026-11-24T00:00:00+00:00")
    'scheduled__2026-11-24T00-00-00-00-00'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", dag_run_id).lstrip("_.-")[:150]


def read_manifest(root: str, run_id: str, job: str) -> dict[str, Any] | None:
    """What the job's last attempt left behind, if it did."""
    path = ObjectStoragePath(root) / "manifests" / run_id / f"{job}.json"
    return json.loads(path.read_text()) if path.exists() else None


def outcome(submitted: int, before: dict[str, Any] | None, after: dict[str, Any] | None) -> int:
    """The exit code of a job that ran in cluster deploy mode.

    A manifest that this attempt wrote tells it. Without one the job had nothing to do (it was done before), or Spark
    failed before the job could say why.
    """
    if after is not None and after != before:
        return int(after["exit_code"])
    if submitted == EXIT_DONE and after is not None and after["exit_code"] == EXIT_DONE:
        return EXIT_DONE
    return submitted or EXIT_RETRYABLE
