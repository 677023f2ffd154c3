from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.evaluation import yardsticks


@pytest.fixture(scope="session")
def movielens(data_folder: Path) -> Path:
    """The folder that holds ml-100k/ml-100k.inter."""
    if not (data_folder / "ml-100k" / "ml-100k.inter").is_file():
        pytest.skip(f"needs ML-100K in {data_folder}/ml-100k: run make data")
    return data_folder


@pytest.fixture(scope="session")
def tiktok() -> Path:
    """The folder with train, validation, test, image_features and audio_features of the protocol tiktok."""
    folder = Path(os.environ.get("AVREC_TIKTOK", Path(os.environ.get("AVREC_DATA", ".cache/data")) / "tiktok"))
    if not (folder / "train.parquet").is_file():
        pytest.skip(f"needs the protocol's data in {folder}: set AVREC_TIKTOK to its folder")
    return folder


@pytest.fixture(autouse=True)
def quick_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random vectors for the titles of films: to encode them takes a quarter of a minute."""

    def vectors(titles: tuple[str, ...]) -> NDArray[np.float32]:
        return np.random.default_rng(0).normal(size=(len(titles), 4)).astype(np.float32)

    monkeypatch.setattr(yardsticks, "title_vectors", vectors)
