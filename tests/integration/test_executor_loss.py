"""An executor or a Python worker dies in the middle of a wave: its tasks run again, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from avrec_spark import tables
from avrec_spark.lakehouse import Lakehouse
from tests.media import hostile

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SPARK = Path(pyspark.__file__).parent
CLIPS = 12
RUN = """
import sys
from pyspark.sql import SparkSession
from avrec_spark import config
from avrec_spark.pipelines import runner
code = runner.guarded(lambda: runner.run(["catalog", "features"], config.load(None, sys.argv[1:]), "r"))
SparkSession.getActiveSession().stop()
sys.exit(code)
"""


@pytest.fixture
def run(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A features run on a cluster of two executors of one core each, in waves of a few clips."""
    folder, home, events = (tmp_path / name for name in ("media", "spark", "events"))
    for place in (folder, home, events):
        place.mkdir()
    # The worker of a local-cluster keeps what its executors wrote in Spark's own folder, so give it another.
    for part in ("bin", "jars"):
        (home / part).symlink_to(SPARK / part)
    for number in range(CLIPS):
        hostile.encode(folder / f"{number}.mp4", seconds=8, size=(320 + 2 * number, 240))
    spark = {
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    settings = [
        f"catalog.source={folder}",
        f"lakehouse.root={tmp_path / 'lakehouse'}",
        "features.encoders=[palette, librosa]",
        "features.commit_seconds=0.5",
        "features.seconds_per_task=0.4",
        "spark.master=local-cluster[2,1,1024]",
        f"spark.conf={json.dumps(spark)}",
    ]
    foreign = ("AVREC_", "PYSPARK_GATEWAY", "CUDA_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *settings],
            cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> dict[int, str]:
    """The command line of each process below this one."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # It has just ended.
        children.setdefault(parent, []).append(int(status.parent.name))
    found, left = {}, [pid]
    while left:
        for child in children.get(left.pop(), ()):
            left.append(child)
            found[child] = command(child)
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def writes_to(pid: int, folder: Path) -> bool:
    """Whether a process runs the first task of a stage that writes to this folder: it opens its file as it begins.

    The other tasks do so with their first row.
    """
    try:
        opened = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False  # A file has just been closed.
    return any(path.startswith(f"{folder}/") and "/part-00000-" in path for path in opened)


def busy_executor(run: subprocess.Popen[str], root: Path) -> int:
    """An executor that writes results of a wave, after another wave was committed."""
    committed = root / "gold" / "item_features" / "_delta_log" / f"{0:020}.json"
    deadline = time.monotonic() + 150
    while not committed.exists():
        assert run.poll() is None and time.monotonic() < deadline, "nothing was ever committed"
        time.sleep(0.05)
    executors = [pid for pid, words in descendants(run.pid).items() if "CoarseGrainedExecutorBackend" in words]
    java = [pid for pid in executors if command(pid).split(" ", 1)[0].endswith("java")]
    assert len(java) == 2
    while run.poll() is None and time.monotonic() < deadline:
        for pid in java:
            if writes_to(pid, root / "staging"):
                return pid
        time.sleep(0.002)
    raise AssertionError("no executor was ever seen at work")


def ends(events: Path) -> Counter[str]:
    """How the tasks of the describing stages ended, by Spark's own event log."""
    log = [json.loads(line) for path in events.iterdir() for line in path.read_text().splitlines()]
    describing = {
        event["Stage Info"]["Stage ID"]
        for event in log
        if event["Event"] == "SparkListenerStageSubmitted" and "MapInPandas" in json.dumps(event["Stage Info"])
    }
    finished = [e for e in log if e["Event"] == "SparkListenerTaskEnd" and e["Stage ID"] in describing]
    return Counter(event["Task End Reason"]["Reason"] for event in finished)


def assert_complete(run, spark, folder: Path) -> None:
    assert run.wait(timeout=240) == 0, (folder / "log").read_text()[-4000:]
    counts = json.loads((folder / "lakehouse" / "manifests" / "r" / "features.json").read_text())["counts"]
    assert (counts["rows_in"], counts["rows_out"], counts["quarantined"]) == (CLIPS, CLIPS, 0)
    lakehouse = Lakehouse(spark, str(folder / "lakehouse"))
    items = {row["item_id"] for row in lakehouse.read(tables.CATALOG).collect()}
    media = lakehouse.read(tables.MEDIA).collect()
    assert sorted(row["item_id"] for row in media) == sorted(items)
    assert {row["status"] for row in media} == {"ok"}
    features = lakehouse.read(tables.ITEM_FEATURES).where("modality <> 'text'").collect()
    made = Counter((row["item_id"], row["encoder"]) for row in features)
    assert made == {(item, encoder): 1 for item in items for encoder in ("palette", "librosa")}
    assert {row["status"] for row in features} == {"ok"}
    shots = lakehouse.read(tables.SHOTS).collect()
    assert len(shots) == len({(row["item_id"], row["shot"]) for row in shots}) >= CLIPS


def test_an_executor_that_is_killed_at_work_costs_time_and_no_row(run, spark, tmp_path):
    executor = busy_executor(run, tmp_path / "lakehouse")

    os.kill(executor, signal.SIGKILL)

    assert_complete(run, spark, tmp_path)
    assert ends(tmp_path / "events")["ExecutorLostFailure"] >= 1


def test_a_python_worker_that_is_killed_at_work_costs_time_and_no_row(run, spark, tmp_path):
    executor = busy_executor(run, tmp_path / "lakehouse")
    daemons = {pid: words for pid, words in descendants(executor).items() if "pyspark.daemon" in words}
    # The daemon is the executor's child, and the workers are its children.
    workers = [pid for daemon in daemons for pid in descendants(daemon) if pid in daemons]

    for worker in workers:
        os.kill(worker, signal.SIGKILL)

    assert workers
    assert_complete(run, spark, tmp_path)
    assert ends(tmp_path / "events")["ExceptionFailure"] >= 1
