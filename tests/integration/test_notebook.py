from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.py"


def test_the_notebook_is_in_databricks_source_format():
    lines = NOTEBOOK.read_text().splitlines()
    assert lines[0] == "# Databricks notebook source"
    assert lines.count("# COMMAND ----------") >= 5


class Widgets:
    """Databricks' `dbutils.widgets` with values that a person has chosen."""

    def __init__(self, **chosen: str) -> None:
        self.chosen, self.shown = chosen, {}

    def text(self, name: str, default: str) -> None:
        self.shown[name] = self.chosen.get(name, default)

    def get(self, name: str) -> str:
        return self.shown[name]


def test_the_quick_start_runs_in_the_session_that_is_already_there(spark, tmp_path):
    settings = yaml.safe_load((REPOSITORY / "tests" / "conf" / "small.yaml").read_text())
    # One model of each kind: the tests of the daily pipeline train all of them.
    settings["train"]["models"] = ["popular", "ease", "fusion"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    widgets = Widgets(root=str(tmp_path), config=str(tmp_path / "settings.yaml"))
    left = runpy.run_path(str(NOTEBOOK), init_globals={"dbutils": SimpleNamespace(widgets=widgets)})
    assert left["spark"] is spark
    assert left["recommendations"].count() > 0
    assert left["report"].parent.parent.parent == tmp_path
    assert left["report"].is_file()
