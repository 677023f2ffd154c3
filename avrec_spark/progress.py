"""Progress: for people on a terminal, and as one structured line a stage in a log."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Self

import pandas as pd
from rich.console import Console
from rich.markup import escape

from avrec_spark import columns as c

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Kernel = Callable[[Iterable[pd.DataFrame]], Iterable[pd.DataFrame]]

_LOG_SECONDS = 30.0

logger = logging.getLogger("avrec")


def configure_logging(level: int = logging.WARNING) -> None:
    """Log to stderr; a scheduler's log gets the stages as JSON lines, a terminal gets them from `rich`."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # MLflow tells every migration of its database, Spark every socket it closes.
    for chatty in ("mlflow", "alembic", "py4j"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logger.setLevel(logging.INFO if not sys.stderr.isatty() else level)


class Progress:
    """Tells what a run is doing.

    On a terminal a line a stage with its figures; elsewhere `{"job": …, "event": …}` lines that a log collector reads.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def started(self, job: str) -> None:
        if self.console.is_terminal:
            self.console.print(f"[bold]▸ {job}[/bold]")
        else:
            self._log(job, "started")

    def note(self, job: str, text: str) -> None:
        """Something worth knowing in the middle of a job."""
        if self.console.is_terminal:
            self.console.print(f"  [dim]{text}[/dim]")
        else:
            self._log(job, "note", text=text)

    def steps(self, job: str) -> Callable[[str, bool], None]:
        """For a job of many like steps: takes a text, and whether it is the last one.

        On a terminal all are noted; elsewhere the last, and before it one now and then.
        """
        told = time.monotonic()

        def step(text: str, last: bool) -> None:
            nonlocal told
            if self.console.is_terminal or last or time.monotonic() - told >= _LOG_SECONDS:
                told = time.monotonic()
                self.note(job, text)

        return step

    def files(self, job: str, total: int, spark: SparkSession) -> FileProgress:
        """Progress of a job that goes through files; a context manager."""
        return FileProgress(self, job, total, spark)

    def done(self, job: str, seconds: float, counts: Mapping[str, int]) -> None:
        if self.console.is_terminal:
            figures = "  ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
            self.console.print(f"  [green]✓[/green] {seconds:5.1f} s  {figures}")
        else:
            self._log(job, "done", seconds=round(seconds, 1), **counts)

    def skipped(self, job: str, why: str) -> None:
        if self.console.is_terminal:
            self.console.print(f"[bold]▸ {job}[/bold]  [dim]{why}[/dim]")
        else:
            self._log(job, "skipped", why=why)

    def failed(self, sentence: str) -> None:
        """The one paragraph that an error is; shown everywhere."""
        self.console.print(f"[red]✗[/red] {escape(sentence)}", soft_wrap=True)

    def _log(self, job: str, event: str, **figures: object) -> None:
        logger.info(json.dumps({"job": job, "event": event, **figures}, ensure_ascii=False))


class FileProgress:
    """How far tasks have come through files: files and media hours a second, and the time left.

    Tasks report when they end, so that the figures move in steps of a few seconds. On a terminal a line that changes,
    elsewhere a log line now and then; in the end one line either way.
    """

    def __init__(self, progress: Progress, job: str, total: int, spark: SparkSession) -> None:
        self._progress, self._job, self._total = progress, job, total
        self._files = spark.sparkContext.accumulator(0.0)
        self._seconds = spark.sparkContext.accumulator(0.0)
        self._ended = threading.Event()
        self._reporter = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._reporter.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._ended.set()
        self._reporter.join()
        if kind is None:
            self._progress.note(self._job, self._line())

    def counted(self, kernel: Kernel) -> Kernel:
        """The function of a task, such that its rows are counted; they have the columns duration and parts."""
        files, seconds = self._files, self._seconds

        def count(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
            for rows in kernel(batches):
                # A range of a long file is that share of the file.
                files.add(float((1 / rows[c.PARTS]).sum()))
                seconds.add(float((rows[c.DURATION].astype(float).fillna(0.0) / rows[c.PARTS]).sum()))
                yield rows

        return count

    def _report(self) -> None:
        if self._progress.console.is_terminal:
            with self._progress.console.status("") as status:
                while not self._ended.wait(1.0):
                    status.update(f"[dim]{self._line()}[/dim]")
        else:
            while not self._ended.wait(_LOG_SECONDS):
                self._progress.note(self._job, self._line())

    def _line(self) -> str:
        spent = max(time.monotonic() - self._started, 1e-3)
        files, hours = self._files.value, self._seconds.value / 3600
        left = spent / files * (self._total - files) if files else 0.0
        line = f"{files:,.0f} of {self._total:,} files, {files / spent:.1f} files/s, {hours / spent:.3f} media hours/s"
        return line + (f", {left:,.0f} s left" if left >= 1 else "")
