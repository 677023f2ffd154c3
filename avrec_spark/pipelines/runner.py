"""The contract of every job, in one place: settings first, idempotent by run id, one row, one manifest, exit codes.

A run id that has done a job with the same inputs does nothing; with other inputs it is refused. Errors end as one
paragraph on the terminal; the traceback goes to the log.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, session, tables
from avrec_spark.errors import (
    EXIT_DONE,
    AvrecError,
    RetryableError,
    RunConflictError,
    UsageError,
    closest,
)
from avrec_spark.lakehouse import Lakehouse, check_writable
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.kafka import is_kafka
from avrec_spark.progress import Progress, configure_logging
from avrec_spark.provenance import code_version
from avrec_spark.tables import Table
from avrec_spark.tracking import Tracking

JOBS = (
    "catalog",
    "events",
    "features",
    "snapshot",
    "train",
    "evaluate",
    "promote",
    "recommend",
    "neighbours",
    "labels",
    "report",
)
# Not in the daily flow: run where somebody wants what they make.
ON_REQUEST = ("ablation", "pretrain")
PIPELINES = {
    "media": ("catalog", "features", "neighbours", "labels", "report"),
    "behaviour": ("events", "snapshot", "train", "evaluate", "promote", "recommend", "report"),
    "daily": JOBS,
    "demo": (*JOBS[:-1], "ablation", "report"),
}
DONE, FAILED = "done", "failed"


def main(job: str, arguments: Sequence[str] | None = None) -> int:
    """The entry point of `jobs/NAME.py`: parse, run one job, and give the exit code."""
    about = inspect.getdoc(inspect.getmodule(find_job(job).run))
    parser = argparse.ArgumentParser(
        prog=f"jobs/{job}.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a settings file, e.g. conf/demo.yaml")
    parser.add_argument("--run-id", help="identifies the run; a finished job of the same run is not repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting")
    options = parser.parse_args(arguments)
    return guarded(lambda: run([job], config.load(options.config, options.set), options.run_id))


def run(jobs: Sequence[str], settings: config.Settings, run_id: str | None = None) -> str:
    """Run jobs in order, in this process; returns the run id. Raises `AvrecError`s."""
    run_id = check_run_id(run_id) if run_id else new_run_id()
    found = [find_job(name) for name in jobs]
    for job in found:
        job.check(settings)
    root = settings.lakehouse.root
    check_writable(root)
    spark = session.get(settings.spark, kafka="events" in jobs and is_kafka(settings.events.source))
    lakehouse = Lakehouse(spark, root)
    tracking = Tracking(settings.tracking, lakehouse.root)
    progress = Progress()
    for job in found:
        context = Context(settings, run_id, job.name, spark, lakehouse, tracking, progress)
        _run_job(job, context)
    return run_id


def render_world(settings: config.Settings) -> Path:
    """Render the small world of the settings, unless it is there already; returns its folder."""
    # With SciPy it takes a second to import, and the jobs have no need of it.
    from avrec_spark.world.render import render

    folder = Path(settings.world.folder or Path(settings.lakehouse.root, "world"))
    check_writable(str(folder))
    progress = Progress()
    progress.started("world")
    started = time.monotonic()
    world = render(settings.world, folder)
    progress.done("world", time.monotonic() - started, {"clips": world.clips, "events": world.events})
    return folder


def expand(name: str) -> tuple[str, ...]:
    """The jobs of a pipeline, or the one job of that name.

    >>> expand("media")
    ('catalog', 'features', 'neighbours', 'labels', 'report')
    """
    if name in PIPELINES:
        return PIPELINES[name]
    if name in (*JOBS, *ON_REQUEST):
        return (name,)
    choices = (*JOBS, *ON_REQUEST, *PIPELINES)
    raise UsageError(f"There is no job or pipeline {name}.{closest(name, choices)}", f"Choose of {', '.join(choices)}.")


def find_job(name: str) -> Job:
    return importlib.import_module(f"avrec_spark.pipelines.{name}").JOB  # type: ignore[no-any-return]


def guarded(action: Callable[[], object]) -> int:
    """Run something; turn its errors into one paragraph on the terminal and an exit code."""
    configure_logging()
    try:
        action()
    except AvrecError as error:
        Progress().failed(str(error))
        return error.exit_code
    return EXIT_DONE


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:4]}"


def check_run_id(run_id: str) -> str:
    """A run id becomes a folder name and a filter, so only plain characters are allowed.

    >>> check_run_id("2026-11-24")
    '2026-11-24'
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,199}", run_id):
        raise UsageError(
            f"The run id {run_id!r} is not usable.",
            "Use letters, digits and _ . : + - only, beginning with a letter or digit.",
        )
    return run_id


def _run_job(job: Job, context: Context) -> None:
    inputs = _inputs(job, context)
    done = _finished(context)
    if done is not None:
        if done != inputs:
            raise RunConflictError(context.run_id, job.name, _differences(done, inputs))
        context.progress.skipped(job.name, f"done before in run {context.run_id}, inputs unchanged")
        return
    context.progress.started(job.name)
    started = time.monotonic()
    record: dict[str, object] = {"run_id": context.run_id, "job": job.name, "inputs": inputs, **code_version()}
    parameters = _flat({name: getattr(context.settings, name).model_dump(mode="json") for name in job.sections})
    tags = {f"input.{name}": value for name, value in inputs.items()} | code_version()
    try:
        with context.tracking.job_run(context.run_id, job.name, parameters, tags) as context.mlflow_id:
            counts = _unchanged(job, context, inputs) or job.run(context)
            context.tracking.log_metrics(context.mlflow_id, {f"count.{name}": n for name, n in counts.items()})
        _add_row(context, DONE, inputs, counts, parameters, started)
    except Exception as failure:
        error = _as_avrec_error(failure, job.name)
        log = context.lakehouse.write_text(traceback.format_exc(), "logs", context.run_id, f"{job.name}.log")
        _record(context, record | _outcome(FAILED, error.exit_code, started, {}) | {"error": str(error), "log": log})
        # What failed the job may fail this too; the job's own error is the one to tell.
        with suppress(Exception):
            _add_row(context, FAILED, inputs, {}, parameters, started)
        if error is failure:
            raise
        raise type(error)(error.what, f"{error.remedy} The traceback is in {log}.") from failure
    record |= _outcome(DONE, EXIT_DONE, started, counts) | context.facts
    _record(context, record)
    context.lakehouse.write_json(record | {"outputs": _versions(job.writes, context)}, "state", f"{job.name}.json")
    context.progress.done(job.name, time.monotonic() - started, counts)


def _inputs(job: Job, context: Context) -> dict[str, str]:
    """Fingerprints of everything that the job's result depends on."""
    settings = {f"settings.{name}": config.fingerprint(getattr(context.settings, name)) for name in job.sections}
    sources = {f"source.{name}": value for name, value in job.sources(context.settings).items()}
    versions = {f"table.{name}": str(version) for name, version in _versions(job.reads, context).items()}
    return settings | sources | versions


def _versions(read: Iterable[Table], context: Context) -> dict[str, int | None]:
    return {table.full_name: context.lakehouse.version(table) for table in read}


def _unchanged(job: Job, context: Context, inputs: dict[str, str]) -> Counts | None:
    """The counts of the job's last run where nothing has changed since, and nothing is to be tried again.

    What that run refused is refused by this one, too.
    """
    last = context.lakehouse.read_json("state", f"{job.name}.json") if job.skips(context.settings) else None
    if last is None or last["inputs"] != inputs or not code_version().items() <= last.items():
        return None
    if last.get("retries_due") or last["outputs"] != _versions(job.writes, context):
        return None
    context.note(f"nothing has changed since run {last['run_id']}")
    if last.get("quarantined_from"):
        refused = context.lakehouse.read(tables.QUARANTINE).where(F.col(c.RUN_ID) == last["run_id"])
        context.quarantine(refused.where(F.col(c.SOURCE).isin(last["quarantined_from"])))
    kept = {"rows_in", "rows_out", "quarantined"}
    return {name: count if name in kept else 0 for name, count in last["counts"].items()}


def _finished(context: Context) -> dict[str, str] | None:
    """The inputs with which this run has already done this job, if it has; by its manifest, which is written last."""
    manifest = context.lakehouse.read_json("manifests", context.run_id, f"{context.job}.json")
    return dict(manifest["inputs"]) if manifest is not None and manifest["status"] == DONE else None


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]


def _as_avrec_error(failure: Exception, job: str) -> AvrecError:
    """What a scheduler and a person need to know about any failure: can a retry help?"""
    if isinstance(failure, AvrecError):
        return failure
    sentence = str(failure).strip().splitlines()[0][:300] if str(failure).strip() else type(failure).__name__
    # Lost executors, full disks and broken connections come as Java errors or OSErrors; the rest is data or a bug.
    passing = isinstance(failure, (Py4JError, OSError)) and not isinstance(failure, FileNotFoundError)
    error = RetryableError if passing else AvrecError
    return error(
        f"The job {job} failed: {type(failure).__name__}: {sentence}.",
        "A retry may help." if passing else "A retry will not help.",
    )


def _outcome(status: str, exit_code: int, started: float, counts: Counts) -> dict[str, object]:
    seconds = round(time.monotonic() - started, 2)
    return {"status": status, "exit_code": exit_code, "seconds": seconds, "counts": counts}


def _record(context: Context, record: Mapping[str, object]) -> None:
    context.lakehouse.write_json(record, "manifests", context.run_id, f"{context.job}.json")


def _add_row(
    context: Context,
    status: str,
    inputs: dict[str, str],
    counts: Counts,
    parameters: Mapping[str, object],
    started: float,
) -> None:
    """The job's row in ops.job_runs; that of a job which failed gives way when the job is done."""
    seconds = time.monotonic() - started
    row = (context.run_id, context.job, status, inputs, counts, json.dumps(parameters), seconds)
    schema = "run_id string, job string, status string, inputs map<string,string>, counts map<string,bigint>, "
    frame = context.spark.createDataFrame([row], schema + "parameters string, seconds double")
    again = context.lakehouse.read_json("manifests", context.run_id, f"{context.job}.json") is not None
    write = context.lakehouse.merge if again else context.lakehouse.append
    write(tables.JOB_RUNS, frame.withColumn(c.RECORDED_AT, F.current_timestamp()))


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as dotted names, the way MLflow shows parameters."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
