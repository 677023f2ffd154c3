"""MLflow: one parent run a pipeline run, one child a job, models in the registry under an alias.

The only module that calls the MLflow client. Jobs of one run may be separate processes: the first creates the parent
and the others find it by its tag.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models.signature import ModelSignature
from mlflow.tracking import MlflowClient

from avrec_spark.config import TrackingSettings

CHAMPION = "champion"
RUN_TAG = "avrec.run_id"
JOB_TAG = "avrec.job"


@dataclass(frozen=True)
class Champion:
    """The registered model version that an alias points to."""

    version: str
    source: str
    tags: dict[str, str]


class Tracking:
    """Runs, metrics, models and the registry of one tracking server.

    With no `uri` in the settings the store is a sqlite file and a folder under `root`.
    """

    def __init__(self, settings: TrackingSettings, root: str) -> None:
        self.uri = settings.uri or f"sqlite:///{root}/mlflow.db"
        mlflow.set_tracking_uri(self.uri)
        self.client = MlflowClient(self.uri)
        artifacts = None if settings.uri else Path(root, "mlartifacts").as_uri()
        self.experiment_id = self._experiment(settings.experiment, artifacts)

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
        assert found is not None
        return str(found.experiment_id)

    # -- runs --------------------------------------------------------------------------------------------------------

    @contextmanager
    def job_run(self, run_id: str, job: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
        """The MLflow run of a job, a child of the pipeline run's; ends FINISHED, or FAILED on an exception."""
        parent = self._parent(run_id)
        self.client.update_run(parent, status="RUNNING")
        run = self.client.create_run(
            self.experiment_id,
            run_name=job,
            tags={"mlflow.parentRunId": parent, RUN_TAG: run_id, JOB_TAG: job, **tags},
        )
        mlflow_id = run.info.run_id
        self.client.log_batch(mlflow_id, params=[Param(key, str(value)[:6000]) for key, value in parameters.items()])
        status = "FAILED"
        try:
            yield mlflow_id
            status = "FINISHED"
        finally:
            self.client.set_terminated(mlflow_id, status)
            self.client.set_terminated(parent, status)

    def job_run_id(self, run_id: str, job: str) -> str | None:
        """The latest finished MLflow run of a job of a pipeline run."""
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.`{RUN_TAG}` = '{run_id}' and tags.`{JOB_TAG}` = '{job}' and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return found[0].info.run_id if found else None

    def _parent(self, run_id: str) -> str:
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}' and tags.`{JOB_TAG}` = 'pipeline'", max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        run = self.client.create_run(self.experiment_id, run_name=run_id, tags={RUN_TAG: run_id, JOB_TAG: "pipeline"})
        return str(run.info.run_id)

    # -- metrics -----------------------------------------------------------------------------------------------------

    def log_metrics(self, mlflow_id: str, metrics: Mapping[str, float]) -> None:
        self.client.log_batch(mlflow_id, metrics=[_metric(name, value, 0) for name, value in metrics.items()])

    def log_history(self, mlflow_id: str, model: str, history: Sequence[Mapping[str, float]]) -> None:
        """Metrics by epoch; each entry has `epoch` and any number of figures."""
        metrics = [
            _metric(f"{model}/{name}", value, int(entry["epoch"]))
            for entry in history
            for name, value in entry.items()
            if name != "epoch"
        ]
        for start in range(0, len(metrics), 1000):  # the server's limit a request
            self.client.log_batch(mlflow_id, metrics=metrics[start : start + 1000])

    def history(self, mlflow_id: str) -> list[tuple[str, int, float]]:
        """(metric, step, value) of everything logged with `log_history`."""
        names = [name for name in self.client.get_run(mlflow_id).data.metrics if "/" in name]
        return [
            (name, int(metric.step), float(metric.value))
            for name in names
            for metric in self.client.get_metric_history(mlflow_id, name)
        ]

    def tag(self, mlflow_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(mlflow_id, tags=[RunTag(name, value) for name, value in tags.items()])

    # -- models ------------------------------------------------------------------------------------------------------

    def log_model(
        self,
        mlflow_id: str,
        name: str,
        code: Path,
        folder: Path,
        signature: ModelSignature,
        example: pd.DataFrame,
        requirements: Sequence[str],
    ) -> str:
        """Store a packaged model under a job's run, after it has answered the example; returns its URI.

        `code` is the program that loads it (MLflow's models from code), `folder` what it loads.
        """
        with mlflow.start_run(run_id=mlflow_id):
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(code),
                artifacts={"model": folder.as_uri()},
                signature=signature,
                input_example=example,
                pip_requirements=list(requirements),
            )
        # start_run marked the job's run as finished when it left; it is not.
        self.client.update_run(mlflow_id, status="RUNNING")
        return str(info.model_uri)

    def download(self, model_uri: str) -> Path:
        """A packaged model as a local folder."""
        return Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=tempfile.mkdtemp(prefix="avrec-model-")))

    def champion(self, registered_model: str) -> Champion | None:
        """The version that the alias `champion` points to, if there is one."""
        try:
            version = self.client.get_model_version_by_alias(registered_model, CHAMPION)
        except MlflowException:
            return None
        return Champion(str(version.version), str(version.source), dict(version.tags))

    def promote(self, registered_model: str, model_uri: str, tags: Mapping[str, str]) -> str:
        """Register a model and point the alias `champion` to it; returns the version."""
        version = mlflow.register_model(model_uri, registered_model, tags=dict(tags))
        self.client.set_registered_model_alias(registered_model, CHAMPION, version.version)
        return str(version.version)


def _metric(name: str, value: float, step: int) -> Metric:
    # MLflow allows no "@" in a metric's name.
    return Metric(name.replace("@", "_at_"), float(value), timestamp=0, step=step)
