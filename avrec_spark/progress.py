"""Progress: for people on a terminal, and as one structured line a stage in a log."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

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
