"""The job events as a process of its own, which SIGKILL ends in the middle of a micro-batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 180
# The job stops where it is to be killed, and says so by a file: a micro-batch is too short to be hit by chance.
RUN = """
import sys, time
from pathlib import Path
from avrec_spark import config, tables
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
moment, batch, reached, run_id, *settings = sys.argv[1:]
merge, merged = Lakehouse.merge, []
def halt():
    Path(reached).touch()
    time.sleep(600)
def halting(self, table, *arguments, **options):
    here = table is tables.EVENTS and len(merged) == int(batch)
    if here and moment == "before the merge":
        halt()
    merge(self, table, *arguments, **options)
    if here and moment == "after the merge":
        halt()
    if table is tables.EVENTS:
        merged.append(table)
Lakehouse.merge = halting
sys.exit(runner.guarded(lambda: runner.run(["events"], config.load(None, settings), run_id)))
"""


@dataclass(frozen=True)
class Job:
    """Runs of the job events on one source, with one lakehouse under `folder`."""

    folder: Path
    settings: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "lakehouse"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def run(self, run_id: str, *settings: str) -> dict[str, int]:
        """Run to the end; the counts of the manifest."""
        assert self.exit_code(run_id, *settings) == 0, self.log[-4000:]
        counts: dict[str, int] = json.loads((self.root / "manifests" / run_id / "events.json").read_text())["counts"]
        assert counts["rows_in"] == counts["rows_out"] + counts["quarantined"]
        return counts

    def exit_code(self, run_id: str, *settings: str) -> int:
        process = self._start("never", 0, run_id, settings)
        try:
            return process.wait(SECONDS)
        finally:
            _kill(process)

    def kill(self, moment: str, batch: int, run_id: str, *settings: str) -> None:
        """Kill it before or after it merges the events of its micro-batch of this number, from 0."""
        process = self._start(moment, batch, run_id, settings)
        deadline = time.monotonic() + SECONDS
        try:
            while not self._reached.exists():
                assert process.poll() is None and time.monotonic() < deadline, self.log[-4000:]
                time.sleep(0.05)
        finally:
            _kill(process)
        assert self._last("offsets") == self._last("commits") + 1, "no micro-batch was interrupted"

    def offsets(self) -> dict[str, dict[str, int]]:
        """What the checkpoint says has been taken, of a topic by partition."""
        assert self._last("offsets") == self._last("commits")
        last = self._checkpoint / "offsets" / str(self._last("offsets"))
        taken: dict[str, dict[str, int]] = json.loads(last.read_text().splitlines()[-1])
        return taken

    @property
    def _reached(self) -> Path:
        return self.folder / "reached"

    @property
    def _checkpoint(self) -> Path:
        (checkpoint,) = (self.root / "checkpoints" / "events").iterdir()
        return checkpoint

    def _last(self, log: str) -> int:
        return max((int(path.name) for path in (self._checkpoint / log).glob("[0-9]*")), default=-1)

    def _start(self, moment: str, batch: int, run_id: str, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
        self._reached.unlink(missing_ok=True)
        arguments = [moment, str(batch), str(self._reached), run_id, f"lakehouse.root={self.root}"]
        foreign = ("AVREC_", "KAFKA_", "PYSPARK_GATEWAY")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", RUN, *arguments, *self.settings, *settings],
                cwd=REPOSITORY, env=environment | self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and its Spark, as a machine that loses its power would end them."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
