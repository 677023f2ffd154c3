"""The exact top-K engine against the bare matrix product."""

from __future__ import annotations

import time

import numpy as np

from avrec_spark.recommend.topk import ScoreSource, top_k
from benchmarks.table import table

ITEMS, FACTORS, USERS, K = 100_000, 64, 2_048, 100


def run() -> str:
    generator = np.random.default_rng(0)
    users = generator.normal(size=(USERS, FACTORS)).astype(np.float32)
    items = generator.normal(size=(FACTORS, ITEMS)).astype(np.float32)
    buffer = np.empty((256, ITEMS), np.float32)
    started = time.perf_counter()
    for start in range(0, USERS, len(buffer)):
        np.matmul(users[start : start + len(buffer)], items, out=buffer)
    bare = USERS / (time.perf_counter() - started)
    started = time.perf_counter()
    top_k([ScoreSource(users, items)], np.arange(USERS), K, block_users=256)
    engine = USERS / (time.perf_counter() - started)
    rows = [["bare product", f"{bare:,.0f}", "1.00"], ["engine, top 100", f"{engine:,.0f}", f"{engine / bare:.2f}"]]
    title = f"Top-K: {ITEMS:,} items × {FACTORS} factors"
    return table(title, "python -m benchmarks", ["what", "users a second", "share of the bare product"], rows)
