from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SPARK_HOME = Path(pyspark.__file__).parent


@dataclass(frozen=True)
class Cluster:
    """A standalone cluster on loopback: a master and two workers of one core each."""

    master: str
    workers: tuple[Path, ...]

    def submit(self, *words: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.master]
        command += ["--properties-file", "tests/conf/cluster.conf", *words]
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
        )


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AVREC_", "PYSPARK_GATEWAY"))}
    return clean | {
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    started = [start(folder, "master", "Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")]
    wait_for(port)
    work = tuple(folder / f"worker{number}" for number in (1, 2))
    for place in work:
        options = (
            "--cores",
            "1",
            "--memory",
            "2g",
            "--host",
            "127.0.0.1",
            "--webui-port",
            "0",
            "--work-dir",
            str(place),
        )
        started.append(start(folder, place.name, "Worker", *options, master))
    yield Cluster(master, work)
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(timeout=30)


def start(folder: Path, name: str, role: str, *options: str) -> subprocess.Popen[bytes]:
    command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{role.lower()}.{role}", *options]
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(command, env=environment(), cwd=folder, stdout=log, stderr=log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"No master listens on 127.0.0.1:{port} after {seconds:.0f} s.")
