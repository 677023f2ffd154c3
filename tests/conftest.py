"""Fixtures that many tests share: one Spark session for all, one small world, the data that `make data` brings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from avrec_spark import config, session

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = REPOSITORY / "tests" / "conf" / "small.yaml"
AIRFLOW = REPOSITORY / ".venv-airflow" / "bin"


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    """Embedded Spark with Delta and two slots, the same for all tests of a process."""
    started = session.get(config.SparkSettings(master="local[2,4]"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """What `make data` downloads; AVREC_DATA overrides the place."""
    folder = Path(os.environ.get("AVREC_DATA", REPOSITORY / ".cache" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the public test data in {folder}: run make data")
    return folder


@pytest.fixture(scope="session")
def airflow_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An Airflow home of its own, with this repository's DAGs."""
    if not (AIRFLOW / "airflow").exists():
        pytest.skip("needs Airflow: run make airflow")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AVREC_"))},
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "airflow_dags"),
        "PYTHONPATH": str(REPOSITORY / "airflow_dags"),
    }


@pytest.fixture(scope="session")
def world12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered 12-clip world: media/, catalog.csv, events.jsonl."""
    from avrec_spark.world.render import render

    folder = tmp_path_factory.mktemp("world12")
    render(config.load(SMALL, environment={}).world, folder)
    return folder


@pytest.fixture
def small(world12: Path, tmp_path: Path) -> config.Settings:
    """Settings of the 12-clip world with a lakehouse of their own."""
    return config.load(SMALL, small_overrides(world12, tmp_path / "lakehouse"), environment={})


def small_overrides(world: Path, root: Path) -> list[str]:
    """The `--set` values that point tests/conf/small.yaml to a world and a lakehouse."""
    return [
        f"catalog.source={world / 'catalog.csv'}",
        f"events.source={world / 'events.jsonl'}",
        f"lakehouse.root={root}",
    ]
