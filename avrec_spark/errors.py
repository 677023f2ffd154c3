"""Named errors: what happened, where, what to do next, and whether a retry can help.

The exit codes are the contract with schedulers: Airflow retries 203 and gives up on 202 (metaflow's habit of telling
the two apart by exit code).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_FAILED = 202
EXIT_RETRYABLE = 203


class AvrecError(Exception):
    """An error that a person can act on.

    `str(error)` is one paragraph: what happened and where, then what to do. Subclasses fix the exit code.

    >>> print(AvrecError("The lamp is off.", "Switch it on."))
    The lamp is off. Switch it on.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have constructors of their own; between processes an error travels as its type and its fields.
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def retryable(self) -> bool:
        return self.exit_code == EXIT_RETRYABLE


def _restored(kind: type[AvrecError], args: tuple[Any, ...], fields: dict[str, Any]) -> AvrecError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class RetryableError(AvrecError):
    """Something passing failed: a lost executor, a full disk, a broken connection."""

    exit_code = EXIT_RETRYABLE


class UsageError(AvrecError):
    """The command or its settings make no sense; nothing was started."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """A setting is unknown or has an impossible value."""


class MissingPathError(UsageError):
    """A file or folder that a setting names does not exist."""

    def __init__(self, setting: str, path: str) -> None:
        super().__init__(
            f"{setting} points to {path}, which does not exist.",
            f"Correct the path, for example with --set {setting}=PATH.",
        )


class EmptyCatalogueError(AvrecError):
    """The source was read and holds no media item."""

    def __init__(self, source: str, looked_for: str) -> None:
        super().__init__(
            f"The catalogue {source} holds no media item (looked for {looked_for}).",
            "Point catalog.source to a folder with media files, or to a CSV or Parquet list with a column uri.",
        )


class MissingColumnsError(UsageError):
    """A table or file lacks columns that are needed; names the missing and the present."""

    def __init__(self, where: str, missing: Iterable[str], present: Iterable[str], remedy: str = "") -> None:
        missing, present = sorted(missing), sorted(present)
        hints = [
            f"{close[0]} looks like {name}"
            for name in missing
            if (close := difflib.get_close_matches(name, present, n=1, cutoff=0.6))
        ]
        super().__init__(
            f"{where} has no column {', '.join(missing)}; its columns are {', '.join(present) or '(none)'}"
            + (f" ({'; '.join(hints)})." if hints else "."),
            remedy or "Rename the columns in the file, or map them in the settings.",
        )


class RunConflictError(UsageError):
    """The run id was used before, with other inputs."""

    def __init__(self, run_id: str, job: str, changed: Iterable[str]) -> None:
        super().__init__(
            f"Run {run_id} has already done the job {job} with other inputs (changed: {', '.join(sorted(changed))}).",
            "Choose a new --run-id to work on the new inputs, or restore the old ones.",
        )


class LakehouseError(AvrecError):
    """The lakehouse cannot be read or written."""


class MissingTableError(LakehouseError):
    """A job's input table has not been written yet."""

    def __init__(self, table: str, root: str, producer: str) -> None:
        super().__init__(
            f"The table {table} does not exist in the lakehouse {root}.",
            f"Run the job that writes it first: avrec run {producer} with the same lakehouse.root.",
        )


class NotEnoughSlotsError(AvrecError):
    """Fewer free task slots than ranks: starting would hang."""

    exit_code = EXIT_RETRYABLE

    def __init__(self, needed: int, free: int, master: str) -> None:
        super().__init__(
            f"Training needs {needed} task slots at once, one a rank, and {master} has {free} free.",
            "Wait for slots or add workers, or lower train.workers.",
        )


class RanksNotStartedError(RetryableError):
    """There are slots for all ranks, and still they did not all report in time."""

    def __init__(self, needed: int, seconds: float, master: str) -> None:
        super().__init__(
            f"The {needed} ranks of the training job did not all start within {seconds:g} s on {master}.",
            "Raise train.start_timeout_seconds where executors first unpack an environment, or look for an error in "
            "their logs.",
        )


class RankFailedError(AvrecError):
    """A rank of a training job ended with an error that is none of the platform's own."""

    def __init__(self, rank: int, cause: str) -> None:
        super().__init__(
            f"Rank {rank} failed in training with {cause}.",
            "Its traceback is in the log of its executor; train.launcher=in-process shows it here.",
        )


class RanksLostError(RetryableError):
    """The ranks of a training job lost each other: a killed process, a lost executor, a broken connection."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The ranks of the training job lost each other: {cause}.",
            "Look for a lost executor or a killed process (memory) in Spark's log, then try again.",
        )


class NotEnoughRowGroupsError(AvrecError):
    """A training snapshot has fewer row groups than there are ranks: some rank would have nothing to read."""

    def __init__(self, path: str, row_groups: int, ranks: int) -> None:
        super().__init__(
            f"The training part {path} has {row_groups} row groups for {ranks} ranks.",
            f"Write the snapshot again with snapshot.row_groups={ranks} or more, or lower train.workers.",
        )


class MissingExtraError(AvrecError):
    """A library that an optional part needs is not installed."""

    def __init__(self, part: str, library: str, extra: str, then: str = "") -> None:
        super().__init__(
            f"{part} needs the library {library}, which is not installed here.",
            f"Install it with: pip install 'avrec-spark[{extra}]'" + (f", then {then}." if then else "."),
        )


class NoSparkSessionError(UsageError):
    """Something that runs on Spark was called in a process without an active session."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} runs on Spark, and this process has no active Spark session.",
            "Start one first: avrec_spark.session.get(SparkSettings()); in a notebook, use the one that is there.",
        )


class FoldInError(UsageError):
    """A model was asked to take new users or events without a fit, and its users are no function of their history."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model {model} cannot fold in new users or events: what it knows of a user is learnt in the fit.",
            "Fit it again with the new interactions, or choose a model that docs/models.md marks as folding in.",
        )


class DecoderStartError(AvrecError):
    """The child process that decodes media could not be started; no file is to blame."""

    exit_code = EXIT_RETRYABLE

    def __init__(self, command: Iterable[str], why: str) -> None:
        super().__init__(
            f"The media decoder could not be started as `{' '.join(command)}`: {why}.",
            "Run the command by hand to see its error; on a cluster, check the Python environment of the workers.",
        )


class DataError(AvrecError):
    """The data of a job cannot give a result (no interactions left, a vector of the wrong width, …)."""


def closest(name: str, choices: Iterable[str]) -> str:
    """A hint for a mistyped name, or an empty string.

    >>> closest("catlog", ["catalog", "events"])
    ' Did you mean catalog?'
    >>> closest("xyz", ["catalog"])
    ''
    """
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""
