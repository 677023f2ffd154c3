"""A small world of latent factors: what two encoders see of items, and users who take what suits them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from avrec_spark.dataset.training_set import TrainingSet

FACTORS, WIDTHS = 4, {"visual": 12, "audio": 9}
QUICK: dict[str, Any] = {"dimension": 16, "content_rank": 8, "epochs": 15, "batch_size": 256}
Frames = dict[str, pd.DataFrame]


def catalogue(n: int, seed: int, first: int = 0) -> tuple[np.ndarray, Frames]:
    """Latent factors of n items, and what the same two encoders see of them: linear views with some noise."""
    generator, encoders = np.random.default_rng(seed), np.random.default_rng(99)
    factors = generator.normal(size=(n, FACTORS))
    views = {name: factors @ encoders.normal(size=(FACTORS, width)) for name, width in WIDTHS.items()}
    noisy = {name: (view + 0.3 * generator.normal(size=view.shape)).astype("f4") for name, view in views.items()}
    ids = first + np.arange(n)
    return factors, {name: pd.DataFrame({"item_id": ids, "vector": list(rows)}) for name, rows in noisy.items()}


def behaviour(factors: np.ndarray, users: int, each: int, seed: int, first_item: int = 0) -> pd.DataFrame:
    """Users with a direction of taste who take of the items that suit them; in order of time."""
    generator = np.random.default_rng(seed)
    liking = 2 * generator.normal(size=(users, FACTORS)) @ factors.T + generator.gumbel(size=(users, len(factors)))
    items = np.argsort(-liking, axis=1)[:, :each]
    items = generator.permuted(items, axis=1) + first_item
    when = np.tile(np.arange(each), users)
    return pd.DataFrame({"user_id": np.repeat(np.arange(users), each), "item_id": items.ravel(), "timestamp": when})


def parted(rows: pd.DataFrame, held_out: int, features: Frames) -> TrainingSet:
    late = rows["timestamp"] >= rows["timestamp"].max() + 1 - held_out
    return TrainingSet.from_frames(rows[~late], features, validation=rows[late])
