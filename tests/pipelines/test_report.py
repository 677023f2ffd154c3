"""The report of lakehouses that lack most things: pictures, a fusion model, all modalities or items but one."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.encoders import registry
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from avrec_spark.pipelines.rows import provenance

Listed = dict[str, tuple[str | None, list[str] | None]]


def page_of(spark, folder: Path, listed: Listed, jobs: list[str], fill=lambda lakehouse: None) -> str:
    """What a reader sees of the report of items (title and tags by id) and of what `fill` puts into the tables."""
    lakehouse = Lakehouse(spark, str(folder))
    rows = [(item, f"{item}.mp4", "present", *said) for item, said in listed.items()]
    frame = spark.createDataFrame(rows, "item_id string, uri string, status string, title string, tags array<string>")
    lakehouse.append(tables.CATALOG, frame)
    lakehouse.append(tables.ITEMS, frame.select("item_id", "title", "tags"))
    fill(lakehouse)
    settings = config.load(None, [f"lakehouse.root={lakehouse.root}", "report.map_items=3"], environment={})
    runner.run([*jobs, "report"], settings, "r")
    page = Path(lakehouse.path("reports", "r", "index.html")).read_text()
    page = re.sub(r"<(style|script)[ >].*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<(?!image|circle)[^>]+>", " ", page).split())


def four_items(lakehouse: Lakehouse) -> None:
    """Vectors of one modality, two items that users have liked, and lists with a new one."""
    spark = lakehouse.spark
    origin = provenance(registry.create("palette", config.FeatureSettings()))
    rows = [(item, *origin.values(), [float(n), 1.0]) for n, item in enumerate("abcd")]
    schema = f"{c.ITEM_ID} string, {', '.join(f'{name} string' for name in origin)}, {c.VECTOR} array<float>"
    lakehouse.append(tables.ITEM_FEATURES, spark.createDataFrame(rows, schema))
    at = datetime(2026, 11, 1)
    liked = [("u1", "a", at, "view", 1.0), ("u2", "b", at, "view", 1.0), ("u2", "d", at, "impression", 0.0)]
    schema = "user_id string, item_id string, timestamp timestamp, event_type string, weight double"
    lakehouse.append(tables.INTERACTIONS, spark.createDataFrame(liked, schema))
    lists = [("u1", 1, "d", 0.5, "a", ["like A"]), ("u2", 1, "d", 0.4, None, ["x"]), ("u1", 2, "b", 0.2, "a", ["x"])]
    schema = "user_id string, rank int, item_id string, score double, because string, reasons array<string>"
    lakehouse.append(tables.RECOMMENDATIONS, spark.createDataFrame(lists, schema))
    near = [("d", "colour", 1, "c", 0.9), ("d", "fused", 1, "b", 0.8)]
    schema = "item_id string, kind string, rank int, neighbour_id string, similarity double"
    lakehouse.append(tables.ITEM_NEIGHBOURS, spark.createDataFrame(near, schema))


def test_one_modality_no_fusion_model_and_no_picture_make_a_page(spark, tmp_path):
    listed: Listed = {"a": ("Anchor", None), "b": ("Bridge", None), "c": ("Canal", None), "d": (None, None)}
    page = page_of(spark, tmp_path, listed, [], four_items)
    assert "No fusion model was fitted in this run" in page
    assert "3 items by vectors of colour" in page and "3 of 4 items, drawn at random" in page
    assert page.count("<circle class=") >= 3 and "<image" not in page
    # d was shown to somebody, and c to nobody: that is no act.
    assert "Items that nobody has acted on: 2; recommended of them: 1, those first that went to most users." in page
    assert "Untitled (d) nobody has acted on it · recommended to 2" in page
    new = page[page.index("Untitled (d) nobody has acted") :]
    assert new.index("Canal colour") < new.index("Anchor user u1 · place 1 · 0.500")
    assert "Bridge" not in new[: new.index("Anchor user u1")]


@pytest.mark.slow
def test_a_catalogue_of_one_item_of_which_nothing_is_known_makes_a_page(spark, tmp_path):
    page = page_of(spark, tmp_path, {"a": ("Anchor", ["ship"])}, ["labels"])
    assert "Anchor" in page
    for sentence in ("No labels were learnt in this run.", "There are no vectors to draw a map of."):
        assert sentence in page
