"""Fixtures that many tests share: one Spark session for all, one small world, the data that `make data` brings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avrec_spark import config, session

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = REPOSITORY / "tests" / "conf" / "small.yaml"
AIRFLOW = REPOSITORY / ".venv-airflow" / "bin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster's tests take minutes in one file: of two processes, one begins with them."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


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


@dataclass(frozen=True)
class ObjectStore:
    """An S3 store on loopback. `environment` is what its clients need; this process has it already."""

    endpoint: str
    environment: dict[str, str]
    client: Any

    def bucket(self, name: str) -> str:
        """A new, empty bucket; its URI."""
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def put(self, uri: str, content: bytes) -> None:
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """moto's S3 on a free port of loopback, for all tests of a process; each test makes a bucket of its own."""
    server_module = pytest.importorskip("moto.server", reason="needs moto, which the extra dev brings")
    import boto3

    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        # No profile and no credentials of this machine, and no service that hands some out.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield ObjectStore(environment["AWS_ENDPOINT_URL"], environment, boto3.client("s3"))
    server.stop()


@pytest.fixture(scope="session")
def world12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered 12-clip world: media/, catalog.csv, events.jsonl."""
    from avrec_spark.world.render import render

    folder = tmp_path_factory.mktemp("world12")
    render(config.load(SMALL, environment={}).world, folder)
    return folder
