"""Rows a minute and peak memory of the metric kernel on both executors, against the number of users.

`python -m benchmarks.metrics EXECUTOR USERS FOLDER` measures one and prints JSON: rows, seconds and peaks.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import PeakMemory
from benchmarks.table import table

USERS = (250_000, 1_000_000)
K, HELD_OUT, ITEMS, SAMPLES = 10, 2, 20_000, 200
_USERS_A_FILE = 50_000
_REPOSITORY = Path(__file__).resolve().parent.parent


def run() -> str:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for users in USERS:
            write(Path(folder, str(users)), users)
        for executor in ("numpy", "spark"):
            for users in USERS:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.metrics",
                    executor,
                    str(users),
                    str(Path(folder, str(users))),
                ]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY).stdout
                one = json.loads(out.splitlines()[-1])
                speed = one["rows"] / one["seconds"] * 60 / 1e6
                cells = (
                    f"{users:,}",
                    f"{one['rows']:,}",
                    f"{one['seconds']:.1f}",
                    f"{speed:.0f}",
                    f"{one['peak_mib']:.0f}",
                )
                lines.append([executor, *cells, f"{one['ndcg']:.6f}"])
    header = ["executor", "users", "rows", "seconds", "million rows a minute", "Python's peak, MiB", "NDCG@10"]
    return table("Metrics against the number of users", "python -m benchmarks metrics", header, lines) + (
        f"\nLists of {K} and {HELD_OUT} held-out items a user, {ITEMS:,} items, {SAMPLES} bootstrap samples, from"
        f"\nParquet files of {_USERS_A_FILE:,} users. numpy is one process that reads a file at a time; Spark is"
        "\nlocal[2], measured after a first small query, and its peak that of the largest Python worker.\n"
    )


def write(folder: Path, users: int) -> None:
    """lists/ and truth/ in files of whole users."""
    random = np.random.default_rng(0)
    for name in ("lists", "truth"):
        (folder / name).mkdir(parents=True)
    for start in range(0, users, _USERS_A_FILE):
        ids = np.arange(start, min(start + _USERS_A_FILE, users))
        first, step = random.integers(0, ITEMS, len(ids)), random.integers(1, ITEMS // K, len(ids))
        items = (first[:, None] + step[:, None] * np.arange(K)) % ITEMS
        ranks = np.tile(np.arange(1, K + 1, dtype=np.int32), len(ids))
        lists = pd.DataFrame({"user_id": np.repeat(ids, K), "item_id": items.ravel(), "rank": ranks})
        # One held-out item is in the list, the other most likely not.
        held_out = np.stack([items[np.arange(len(ids)), ids % K], random.integers(0, ITEMS, len(ids))], axis=1)
        truth = pd.DataFrame({"user_id": np.repeat(ids, HELD_OUT), "item_id": held_out.ravel()})
        for name, frame in (("lists", lists), ("truth", truth)):
            frame.to_parquet(folder / name / f"{start:09}.parquet", index=False)


def measure(executor: str, users: int, folder: Path) -> dict[str, float]:
    rows = users * (K + HELD_OUT)
    seconds, peak, ndcg = (_numpy if executor == "numpy" else _spark)(folder)
    return {"rows": rows, "seconds": seconds, "peak_mib": peak, "ndcg": ndcg}


def _numpy(folder: Path) -> tuple[float, float, float]:
    from avrec_spark.evaluation import executors

    files = sorted((folder / "lists").iterdir())
    started = time.perf_counter()
    parts = ({name: pd.read_parquet(folder / name / file.name) for name in ("lists", "truth")} for file in files)
    found = executors.evaluate_parts(parts, (K,), ITEMS, SAMPLES)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found["ndcg@10"]["mean"]


def _spark(folder: Path) -> tuple[float, float, float]:
    from avrec_spark import config, session
    from avrec_spark.evaluation import executors

    spark = session.get(config.SparkSettings(master="local[2]"))
    lists, truth = (spark.read.parquet(str(folder / name)) for name in ("lists", "truth"))
    # Starts the Python workers and loads the classes.
    executors.evaluate_spark(lists.limit(1000), truth.limit(1000), (K,), ITEMS, SAMPLES)
    started = time.perf_counter()
    with PeakMemory(_largest_worker) as peak:
        found = executors.evaluate_spark(lists, truth, (K,), ITEMS, SAMPLES)
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds, peak.mebibytes, found["ndcg@10"]["mean"]


def _largest_worker(found: list[tuple[str, float]]) -> float:
    """This process comes first, and is none."""
    return max((mebibytes for name, mebibytes in found[1:] if "python" in name), default=0.0)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
