from __future__ import annotations

import os
from pathlib import Path

import pytest


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
