"""The exact top-K engine beside the bare matrix product, implicit and Spark MLlib: `make bench-topk`. One core each."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.linalg.blas import sgemm
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_info

from avrec_spark import config, session
from avrec_spark.recommend.topk import ScoreSource, top_k
from benchmarks.measure import one_core, spread
from benchmarks.table import table

ROUNDS = 5
ITEMS, FACTORS, USERS, K = 100_000, 64, 2_048, 100
MLLIB_USERS, BLOCK = 512, 256
HISTORY_ITEMS, HISTORY = 10_000, 100
HISTORY_ENGINE = "engine, histories × item weights"


def run() -> str:
    random = np.random.default_rng(0)
    users = random.normal(size=(USERS, FACTORS)).astype(np.float32)
    items = random.normal(size=(ITEMS, FACTORS)).astype(np.float32)
    factors = ScoreSource(users, np.ascontiguousarray(items.T))
    histories, weights = _histories(random), random.normal(size=(HISTORY_ITEMS, HISTORY_ITEMS)).astype(np.float32)
    everybody, buffer = np.arange(USERS), np.empty((BLOCK, ITEMS), np.float32)
    blocks = range(0, USERS, BLOCK)

    def bare_scipy() -> None:
        for n in blocks:
            sgemm(1, factors.right.T, users[n : n + BLOCK].T, 0, buffer.T, overwrite_c=True)

    def bare_numpy() -> None:
        for n in blocks:
            np.matmul(users[n : n + BLOCK], factors.right, out=buffer)

    # The JVM inherits the one core, and so do the workers of Spark.
    with one_core():
        spark = session.get(config.SparkSettings(master="local[1]"))
        actions: dict[str, tuple[int, Callable[[], object]]] = {
            "engine": (USERS, lambda: top_k([factors], everybody, K)),
            "bare product, BLAS of scipy": (USERS, bare_scipy),
            "bare product, BLAS of numpy": (USERS, bare_numpy),
            "implicit, recommend": (USERS, _implicit(users, items)),
            "MLlib, recommendForAllUsers": (MLLIB_USERS, _mllib(spark, users[:MLLIB_USERS], items)),
            HISTORY_ENGINE: (USERS, lambda: top_k([ScoreSource(histories, weights)], everybody, K, histories)),
            "histories, product by scipy": (USERS, lambda: [histories[n : n + BLOCK] @ weights for n in blocks]),
        }
        started = time.perf_counter()
        top_k([factors], everybody[:1], K)
        first = time.perf_counter() - started
        rates: dict[str, list[float]] = {name: [] for name in actions}
        for number in range(ROUNDS + 1):
            for name, (count, action) in actions.items():
                started = time.perf_counter()
                action()
                if number:  # the first round warms up
                    rates[name].append(count / (time.perf_counter() - started))
        spark.stop()
    return _section(rates, first)


def _section(rates: dict[str, list[float]], first: float) -> str:
    rows = []
    for name, values in rates.items():
        engine = rates[HISTORY_ENGINE if name.startswith("histories") else "engine"]
        ratios = [a / b for a, b in zip(engine, values, strict=True)]
        rows.append([name, spread(values, 0), spread(ratios) if values is not engine else ""])
    title = f"Top-K: exact top {K} of {ITEMS:,} items × {FACTORS} factors, one core"
    blas = [f"{one['version']} with {one['architecture']}" for one in threadpool_info() if one["user_api"] == "blas"]
    return (
        table(title, "make bench-topk", ["what", "users a second", "speed of the engine ÷ this"], rows)
        + f"\nMedian (and range) of {ROUNDS} rounds; random factors; everything on one core, BLAS, implicit and Spark"
        f"\n(local[1]) with one thread; {USERS:,} users, MLlib {MLLIB_USERS}. Histories: {HISTORY} draws of"
        f"\n{HISTORY_ITEMS:,} items × dense weights, seen items left out. The engine multiplies by scipy's BLAS."
        f"\nOpenBLAS here: {', '.join(sorted(set(blas)))} kernels. The first call took {first:.2f} s: compiling the"
        "\nselection, or loading it where an earlier process has compiled it. Limit: the product, then finding the few"
        "\nscores above a user's threshold.\n"
    )


def _histories(random: np.random.Generator) -> csr_matrix:
    """Of each user up to HISTORY items, drawn by popularity rank^-.8."""
    popularity = random.permutation(np.arange(1.0, HISTORY_ITEMS + 1) ** -0.8)
    drawn = random.choice(HISTORY_ITEMS, USERS * HISTORY, p=popularity / popularity.sum())
    rows = np.repeat(np.arange(USERS), HISTORY)
    matrix = csr_matrix((np.ones(len(drawn), np.float32), (rows, drawn)), shape=(USERS, HISTORY_ITEMS))
    matrix.data[:] = 1
    return matrix


def _implicit(users: NDArray[np.float32], items: NDArray[np.float32]) -> Callable[[], object]:
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=FACTORS, use_gpu=False, num_threads=1)
    model.user_factors, model.item_factors = users, items
    everybody, nothing = np.arange(USERS), csr_matrix((USERS, ITEMS), dtype=np.float32)

    def recommend() -> object:
        return model.recommend(everybody, nothing, N=K, filter_already_liked_items=False)

    return recommend


def _mllib(spark: SparkSession, users: NDArray[np.float32], items: NDArray[np.float32]) -> Callable[[], object]:
    """recommendForAllUsers of an ALSModel that holds these factors."""
    schema = "id int, features array<float>"

    def frame(rows: NDArray[np.float32]) -> DataFrame:
        found = spark.createDataFrame(pd.DataFrame({"id": range(len(rows)), "features": list(rows)}), schema)
        found = found.coalesce(1).cache()
        found.count()
        return found

    java = spark._jvm.org.apache.spark.ml.recommendation
    model = java.ALSModel("als", FACTORS, frame(users)._jdf, frame(items)._jdf).setUserCol("user").setItemCol("item")

    def recommend() -> None:
        model.recommendForAllUsers(K).write().format("noop").mode("overwrite").save()

    return recommend
