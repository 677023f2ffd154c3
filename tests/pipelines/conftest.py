from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avrec_spark import config
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from avrec_spark.tracking import Tracking

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SMALL = REPOSITORY / "tests" / "conf" / "small.yaml"


@dataclass(frozen=True)
class Finished:
    """A run of the whole flow on the 12-clip world. `notebook` has the variables of the notebook that ran it."""

    run_id: str
    world: Path
    settings: config.Settings
    lakehouse: Lakehouse
    notebook: dict[str, Any]

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.settings.tracking, self.lakehouse.root)

    def rows(self, table):
        return self.lakehouse.read(table).toPandas()


class Widgets:
    """Databricks' `dbutils.widgets` with values that a person has chosen."""

    def __init__(self, **chosen: str) -> None:
        self.chosen, self.shown = chosen, {}

    def text(self, name: str, default: str) -> None:
        self.shown[name] = self.chosen.get(name, default)

    def get(self, name: str) -> str:
        return self.shown[name]


@pytest.fixture(scope="session")
def daily(spark, world12, tmp_path_factory) -> Finished:
    """By the quick start notebook, which runs every job of the daily pipeline in the session that is already there."""
    root = tmp_path_factory.mktemp("daily")
    # The notebook finds its world rendered.
    (root / "world").symlink_to(world12)
    databricks = SimpleNamespace(widgets=Widgets(root=str(root), config=str(SMALL)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "new_run_id", lambda: "first")
        left = runpy.run_path(str(REPOSITORY / "notebooks" / "quickstart.py"), init_globals={"dbutils": databricks})
    return Finished("first", world12, left["settings"], left["lakehouse"], left)
