"""One job of the platform as an Airflow task: spark-submit, whose exit code says whether a retry can help.

Where things are comes from the environment of the Airflow worker:

    AVREC_HOME         the checkout: jobs/, conf/ and, by default, .venv (default: the folder above this one)
    AVREC_PYTHON       the Python that the platform is installed for (default: AVREC_HOME/.venv/bin/python)
    AVREC_SPARK_HOME   the Spark that submits (default: the pyspark of that Python)
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, ObjectStoragePath
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# The contract of every job in jobs/: what a scheduler may conclude from its exit code.
EXIT_DONE, EXIT_USAGE, EXIT_FAILED, EXIT_RETRYABLE = 0, 2, 202, 203


class JobOperator(BaseOperator):
    """Run `jobs/<job>.py` through spark-submit with the parameters of the DAG run.

    Parameters read: config, master, deploy_mode, properties_file, root, set, run_id; those that are not given are left
    to spark-submit's own defaults. Exit codes 2 and 202 fail the task for good, 203 and any other are retried.
    In cluster deploy mode spark-submit only knows whether the driver failed, so the code is taken from the job's
    manifest, `<root>/manifests/<run_id>/<job>.json`; `root` is the settings' lakehouse.root.
    """

    def __init__(self, job: str, **kwargs: Any) -> None:
        super().__init__(task_id=job, **kwargs)
        self.job = job
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Mapping[str, Any]) -> str:
        """Returns the platform's run id."""
        params = context["params"]
        run_id = params["run_id"] or usable_run_id(context["run_id"])
        manifest = None
        if params["deploy_mode"] == "cluster":
            if not params["root"]:
                raise AirflowFailException(
                    "deploy_mode cluster needs the parameter root, the settings' lakehouse.root: "
                    "the exit code of a driver on the cluster is read from the manifest there."
                )
            manifest = ObjectStoragePath(params["root"]) / "manifests" / run_id / f"{self.job}.json"
        before = read(manifest)
        code = self._submit(params, run_id)
        if manifest is not None:
            code = exit_code(code, before, read(manifest))
        self._conclude(code, run_id)
        return run_id

    def on_kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # spark-submit is a shell, a JVM and a Python; the whole group has to go.
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _submit(self, params: Mapping[str, Any], run_id: str) -> int:
        place = environment()
        command = command_line(self.job, params, run_id, place)
        self.log.info("%s", " ".join(command))
        self._process = subprocess.Popen(
            command,
            cwd=place["AVREC_HOME"],
            # Airflow's own libraries must not reach the platform's Python.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | place,
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
            self.on_kill()  # a time-out raises out of the loop: nothing stays behind

    def _conclude(self, code: int, run_id: str) -> None:
        what = f"The job {self.job} of run {run_id} ended with exit code {code}"
        if code in (EXIT_USAGE, EXIT_FAILED):
            raise AirflowFailException(f"{what}: a retry cannot help; the reason is in the lines above.")
        if code != EXIT_DONE:
            raise AirflowException(f"{what}: a retry may help; the reason is in the lines above.")


def environment() -> dict[str, str]:
    """What the child process must see, whatever else is installed beside Airflow."""
    home = Path(os.environ.get("AVREC_HOME") or Path(__file__).resolve().parent.parent)
    python = Path(os.environ.get("AVREC_PYTHON") or home / ".venv" / "bin" / "python")
    if not python.exists():
        raise AirflowFailException(f"There is no {python}: run make setup there, or set AVREC_HOME or AVREC_PYTHON.")
    spark = os.environ.get("AVREC_SPARK_HOME")
    if not spark:
        # The environment's own folder, so not what a link from its bin/python resolves to.
        found = sorted(python.parent.parent.glob("lib/python*/site-packages/pyspark"))
        if not found:
            raise AirflowFailException(f"{python} has no pyspark beside it: set AVREC_SPARK_HOME.")
        spark = str(found[-1])
    return {
        "AVREC_HOME": str(home),
        "SPARK_HOME": spark,
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": str(python),
    }


def command_line(job: str, params: Mapping[str, Any], run_id: str, place: Mapping[str, str]) -> list[str]:
    """spark-submit with its options, the job, and the job's own."""
    command = [str(Path(place["SPARK_HOME"], "bin", "spark-submit"))]
    for option in ("master", "deploy_mode", "properties_file"):
        if params[option]:
            command += ["--" + option.replace("_", "-"), str(params[option])]
    command += [str(Path(place["AVREC_HOME"], "jobs", f"{job}.py")), "--config", str(params["config"])]
    command += ["--run-id", run_id]
    for setting in params["set"] or ():
        command += ["--set", str(setting)]
    return command


def usable_run_id(dag_run_id: str) -> str:
    """The DAG run's id in characters that a folder may have, so that a task that runs again finds its own work."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", dag_run_id).lstrip("_.-")


def read(manifest: ObjectStoragePath | None) -> dict[str, Any] | None:
    """The manifest of a job, or None where there is none yet."""
    if manifest is None or not manifest.exists():
        return None
    return dict(json.loads(manifest.read_text()))


def exit_code(submitted: int, before: dict[str, Any] | None, after: dict[str, Any] | None) -> int:
    """The job's own exit code, from spark-submit's and the manifest before and after."""
    if after is not None and after != before:
        return int(after["exit_code"])
    if submitted == EXIT_DONE and after is not None and after["exit_code"] == EXIT_DONE:
        return EXIT_DONE  # the run had done this job before, and so wrote nothing
    return submitted or EXIT_RETRYABLE  # the driver ended before it could say why
