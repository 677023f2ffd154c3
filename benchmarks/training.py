"""Training: two Horovod ranks against one with one thread each, and what embedding tables cost between ranks."""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import torch

from avrec_spark import config, session
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.mf import FactorModule
from avrec_spark.training import launchers, loop
from avrec_spark.training.ranks import OneRank, Ranks
from benchmarks.table import table

# So few items that the softmax runs over all of them: with sampled ones, a rank's candidates are those of its own part
# of the batch, and two ranks would compute less for a sample than one.
USERS, ITEMS, ROWS, DIMENSION, BATCH, EPOCHS = 50_000, 4_000, 400_000, 128, 4_096, 3
# More than twice the loader's buffer for each of two ranks, so that every epoch reads the shard's files again.
STREAMED_ROWS = 1_200_000
# The ranks need not find this module where they run.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def run() -> str:
    """The section; a Spark session with two slots is started and stopped."""
    spark = session.get(config.SparkSettings(master="local[2,4]"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(folder)
    finally:
        spark.stop()


def _measure(folder: str) -> str:
    dense = loop.TrainingConfig(
        path=_snapshot(folder, ROWS),
        factory=FactorModule,
        parameters={"dimension": DIMENSION, "dropout": 0.2},
        epochs=EPOCHS,
        batch_size=BATCH,
    )
    lazy = replace(dense, lazy_embeddings=True)
    launcher = launchers.create("horovod", 120)
    rows = []
    for name, given in (("every row moves", dense), ("lazy_embeddings", lazy)):
        one, two = (launcher.launch(one_thread, given, ranks) for ranks in (1, 2))
        speed = _median(two, "samples_per_second") / _median(one, "samples_per_second")
        rows += [_row(name, 1, one, "1.00"), _row(name, 2, two, f"{speed:.2f}")]
    streamed = replace(lazy, path=_snapshot(folder, STREAMED_ROWS))
    rows.append(_row("lazy_embeddings, read from disk", 2, launcher.launch(one_thread, streamed, 2), ""))
    numbers = (USERS + ITEMS) * DIMENSION
    title = f"Training: {USERS:,} users, {ITEMS:,} items × {DIMENSION} factors, global batches of {BATCH:,}"
    header = ["embeddings", "ranks", "samples/s", "× one rank", "waits for petastorm", "MB a step", "last loss"]
    return (
        table(title, "make bench-training", header, rows)
        + f"\nHorovod on Spark, one thread a rank, the same global batch, without the first of {EPOCHS} epochs. A "
        f"dense all-reduce of both tables would move {4 * numbers / 1e6:.1f} MB a step and rank. "
        f"A shard of {ROWS:,} rows stays in memory after the first epoch; the last row has {STREAMED_ROWS:,}, which "
        "petastorm reads from disk in every epoch.\n"
    )


def _snapshot(folder: str, rows: int) -> str:
    """The path of a training set with so many rows, whose popularity is as in life: a few items have most of them."""
    generator = np.random.default_rng(0)
    ranks_of_items = np.minimum(generator.pareto(1.2, rows) * 40, ITEMS - 1).astype(int)
    items = generator.permutation(ITEMS)[ranks_of_items]
    pairs = pd.DataFrame({"user_id": generator.integers(0, USERS, rows), "item_id": items})
    path = f"{folder}/{rows}"
    TrainingSet.from_frames(pairs).write(path, row_groups=16)
    return path


def _row(name: str, ranks: int, history: list[dict[str, Any]], speed: str) -> list[str]:
    return [
        name,
        str(ranks),
        f"{_median(history, 'samples_per_second'):,.0f}",
        speed,
        f"{100 * _median(history, 'data_wait_share'):.1f} %",
        f"{_median(history, 'exchanged_bytes_per_step') / 1e6:.2f}",
        f"{history[-1]['loss']:.4f}",
    ]


def one_thread(given: loop.TrainingConfig, ranks: Ranks) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    return loop.train(given, ranks).history


def alone(given: loop.TrainingConfig, ranks: Ranks) -> list[dict[str, Any]]:
    """Train as one rank, while the others do so too."""
    history = one_thread(given, OneRank())
    ranks.mean(0.0)
    return history


def _median(history: list[dict[str, Any]], figure: str) -> float:
    """Of the epochs after the first, in which things are read and compiled for the first time."""
    return statistics.median(entry[figure] for entry in history[1:])
