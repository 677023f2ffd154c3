"""The quick start notebook; what its run has made is looked at by test_daily.py."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.py"


def test_the_notebook_is_in_databricks_source_format():
    lines = NOTEBOOK.read_text().splitlines()
    assert lines[0] == "# Databricks notebook source"
    assert lines.count("# COMMAND ----------") >= 5


def test_the_quick_start_runs_in_the_session_that_is_already_there(daily, spark):
    left = daily.notebook
    assert left["spark"] is spark
    assert left["recommendations"].count() > 0
    assert left["report"] == Path(daily.lakehouse.path("reports", "first", "index.html"))
    assert left["report"].is_file()
