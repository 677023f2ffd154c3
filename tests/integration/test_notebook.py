from __future__ import annotations

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.py"


def test_the_notebook_is_in_databricks_source_format():
    lines = NOTEBOOK.read_text().splitlines()
    assert lines[0] == "# Databricks notebook source"
    assert lines.count("# COMMAND ----------") >= 5


def test_the_quick_start_runs_in_the_session_that_is_already_there(spark, tmp_path, monkeypatch):
    monkeypatch.setenv("AVREC_NOTEBOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("AVREC_NOTEBOOK_CONFIG", str(REPOSITORY / "tests" / "conf" / "small.yaml"))
    left = runpy.run_path(str(NOTEBOOK))
    assert left["spark"] is spark
    assert left["recommendations"].count() > 0
    assert left["report"].is_file()
