"""Behaviour to figures against the number of events: `make bench-scale`. One process a size, so that peaks are its own.

`python -m benchmarks.scale ROWS FOLDER` measures one size and prints JSON: seconds by job, and peak memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from avrec_spark import config, session
from avrec_spark.pipelines import runner
from benchmarks.measure import PeakMemory
from benchmarks.table import table

SIZES = (1_000_000, 3_000_000, 10_000_000)
JOBS = {"events": "ingest", "snapshot": "split", "train": "ALS", "evaluate": "evaluation"}
EVENTS_A_USER, EVENTS_AN_ITEM = 50, 500
_FILE_ROWS = 500_000
_REPOSITORY = Path(__file__).resolve().parent.parent


def run() -> str:
    found = {rows: _in_its_own_process(rows) for rows in SIZES}
    lines = [
        [
            f"{rows:,}",
            *[f"{one['seconds'][job]:.0f}" for job in JOBS],
            f"{_total(one):.0f}",
            f"{_total(one) / _total(found[SIZES[0]]):.1f}",
            f"{one['peak_mib'] / 1024:.1f}",
        ]
        for rows, one in found.items()
    ]
    header = ["events", *[f"{name}, s" for name in JOBS.values()], "all, s", f"÷ {SIZES[0]:,}", "peak, GiB"]
    text = table("Events to figures against their number", "make bench-scale", header, lines)
    return text + (
        f"\nSynthetic events, {EVENTS_A_USER} a user and {EVENTS_AN_ITEM} an item on average, popularity after Zipf;"
        "\nALS of rank 32, 15 iterations. Peak: driver, JVM and Python workers together. The next ×10 needs a cluster"
        "\nfor ingest and ALS, and a driver that can hold the training set while it is indexed.\n"
    )


def _total(one: dict[str, dict[str, float]]) -> float:
    return sum(one["seconds"].values())


def _in_its_own_process(rows: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.scale", str(rows), folder]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY).stdout
    found: dict[str, dict[str, float]] = json.loads(out.splitlines()[-1])
    return found


def measure(rows: int, folder: Path) -> dict[str, object]:
    events = write_events(folder / "events", rows)
    overrides = [
        f"events.source={events}",
        f"lakehouse.root={folder / 'lakehouse'}",
        "train.models=[als]",
        "evaluate.ks=[10]",
        "evaluate.bootstrap_samples=0",
    ]
    settings = config.load(overrides=overrides, environment={})
    session.get(settings.spark)
    seconds = {}
    with PeakMemory(lambda found: sum(mebibytes for _, mebibytes in found)) as peak:
        for job in JOBS:
            started = time.perf_counter()
            runner.run([job], settings, "scale")
            seconds[job] = time.perf_counter() - started
    return {"rows": rows, "seconds": seconds, "peak_mib": peak.mebibytes}


def write_events(folder: Path, rows: int, seed: int = 0) -> Path:
    """Parquet files of views: users and items meet by popularity and by a taste that both have."""
    random = np.random.default_rng(seed)
    n_users, n_items, tastes = rows // EVENTS_A_USER, rows // EVENTS_AN_ITEM, 16
    folder.mkdir(parents=True)
    share = 1.0 / np.arange(1, n_items // tastes + 2) ** 0.8
    popular = np.cumsum(share / share.sum())
    activity = np.cumsum(random.lognormal(sigma=1.0, size=n_users))
    activity /= activity[-1]
    for number, start in enumerate(range(0, rows, _FILE_ROWS)):
        count = min(_FILE_ROWS, rows - start)
        user = np.searchsorted(activity, random.random(count))
        taste = np.where(random.random(count) < 0.7, user % tastes, random.integers(0, tastes, count))
        item = np.minimum(np.searchsorted(popular, random.random(count)) * tastes + taste, n_items - 1)
        seconds = 1_700_000_000 + random.integers(0, 30 * 86_400, count)
        frame = pd.DataFrame({"user_id": user, "item_id": item, "event_type": "view", "timestamp": seconds})
        frame.assign(watch_seconds=random.exponential(8.0, count).round(2)).to_parquet(folder / f"{number:04}.parquet")
    return folder


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
