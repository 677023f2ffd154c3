from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def movielens(data_folder: Path) -> Path:
    """The folder that holds ml-100k/ml-100k.inter."""
    if not (data_folder / "ml-100k" / "ml-100k.inter").is_file():
        pytest.skip(f"needs ML-100K in {data_folder}/ml-100k: run make data")
    return data_folder
