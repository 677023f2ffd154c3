"""Airflow lives in an environment of its own, so its tests look at it from outside, through its interpreter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
AIRFLOW = REPOSITORY / ".venv-airflow" / "bin"

InAirflow = Callable[..., Any]


@pytest.fixture(scope="session")
def in_airflow(airflow_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> InAirflow:
    """Run a script in Airflow's interpreter; what it leaves in `answer` comes back."""

    def run(script: str, environment: Mapping[str, str] | None = None) -> Any:
        answer = tmp_path_factory.mktemp("answer") / "answer.json"
        ending = f"\nimport json\nopen({str(answer)!r}, 'w').write(json.dumps(answer))\n"
        done = subprocess.run(
            [AIRFLOW / "python", "-c", script + ending],
            env={**airflow_environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(answer.read_text())

    return run
