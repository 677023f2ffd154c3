from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from avrec_spark import config
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from avrec_spark.tracking import Tracking

SMALL = Path(__file__).resolve().parent.parent / "conf" / "small.yaml"


@dataclass(frozen=True)
class Finished:
    """A run of the whole flow on the 12-clip world."""

    run_id: str
    world: Path
    settings: config.Settings
    lakehouse: Lakehouse

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.settings.tracking, self.lakehouse.root)

    def rows(self, table):
        return self.lakehouse.read(table).toPandas()


@pytest.fixture(scope="session")
def daily(spark, world12, tmp_path_factory) -> Finished:
    root = tmp_path_factory.mktemp("daily")
    settings = config.load(
        SMALL,
        [
            f"catalog.source={world12 / 'catalog.csv'}",
            f"events.source={world12 / 'events.jsonl'}",
            f"lakehouse.root={root}",
        ],
        environment={},
    )
    runner.run(runner.expand("daily"), settings, "first")
    return Finished("first", world12, settings, Lakehouse(spark, str(root)))
