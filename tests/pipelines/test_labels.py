"""The labels job on a catalogue of 72 items with empty files, whose vectors are made to tell one of two tags."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.encoders import registry
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from avrec_spark.pipelines.rows import provenance

TAGGED, UNTAGGED = [f"t{number:02}" for number in range(60)], [f"u{number:02}" for number in range(12)]
# One item has no vector, and no item has any words or sound.
BARE = "u11"
# One has no file, and the file of another cannot be decoded.
MISSING, CORRUPT = "u10", "u09"


def is_warm(item: str) -> bool:
    return int(item[1:]) % 2 == 0


class Place:
    def __init__(self, spark, folder: Path) -> None:
        self.lakehouse = Lakehouse(spark, str(folder / "lakehouse"))
        self.folder = folder

    def run(self, jobs: list[str], run_id: str, *overrides: str) -> None:
        given = [f"catalog.source={self.folder / 'list.csv'}", f"lakehouse.root={self.lakehouse.root}"]
        settings = config.load(None, [*given, "labels.min_positives=5", *overrides], environment={})
        runner.run(jobs, settings, run_id)

    def predicted(self) -> dict[str, list[tuple[str, float]]]:
        rows = self.lakehouse.read(tables.ITEMS).collect()
        return {row[c.ITEM_ID]: [tuple(tag) for tag in row[c.PREDICTED_TAGS] or ()] for row in rows}

    def manifest(self, run_id: str) -> dict:
        return json.loads(Path(self.lakehouse.path("manifests", run_id, "labels.json")).read_text())


@pytest.fixture(scope="module")
def place(spark, tmp_path_factory) -> Place:
    place = Place(spark, tmp_path_factory.mktemp("labels"))
    tags = {item: ("warm" if is_warm(item) else "cold") + (";rare" if item == "t00" else "") for item in TAGGED}
    listed = pd.DataFrame({"item_id": TAGGED + UNTAGGED})
    listed.assign(uri=listed["item_id"] + ".mp4", tags=listed["item_id"].map(tags)).to_csv(
        place.folder / "list.csv", index=False
    )
    for item in listed["item_id"].drop(listed.index[listed["item_id"] == MISSING]):
        (place.folder / f"{item}.mp4").touch()
    place.run(["catalog"], "c1")
    place.lakehouse.append(tables.MEDIA, spark.createDataFrame([(CORRUPT, "corrupt")], "item_id string, status string"))
    origin = provenance(registry.create("palette", config.FeatureSettings()))
    # The first number tells the tag, the second one nothing.
    rows = [
        (item, *origin.values(), [1.0 if is_warm(item) else -1.0, number % 7 / 7])
        for number, item in enumerate(TAGGED + UNTAGGED)
        if item != BARE
    ]
    schema = f"{c.ITEM_ID} string, {', '.join(f'{name} string' for name in origin)}, {c.VECTOR} array<float>"
    place.lakehouse.append(tables.ITEM_FEATURES, spark.createDataFrame(rows, schema))
    shots = [("u00", 0, 0.0, 1.0, b"\xff\xd8short"), ("u00", 1, 1.0, 9.0, b"\xff\xd8long")]
    schema = f"{c.ITEM_ID} string, {c.SHOT} int, {c.START} double, {c.END} double, {c.THUMBNAIL} binary"
    place.lakehouse.append(tables.SHOTS, spark.createDataFrame(shots, schema))
    place.run(["labels"], "first")
    return place


def test_untagged_items_get_what_their_vectors_tell_apart_from_the_declared_tags(place):
    predicted = place.predicted()
    for item in UNTAGGED:
        told = [] if item == BARE else ["warm" if is_warm(item) else "cold"]
        assert [tag for tag, _ in predicted[item]] == told
    assert all(0.5 <= confidence <= 1 for tags in predicted.values() for _, confidence in tags)
    assert all(not predicted[item] for item in TAGGED)
    counts = place.manifest("first")["counts"]
    assert (counts["rows_in"], counts["rows_out"], counts["quarantined"]) == (72, 72, 0)
    assert (counts["labels_learnt"], counts["labels_left_out"], counts["items_without_features"]) == (2, 1, 1)
    assert place.manifest("first")["labels_left_out"] == {"rare": "has 1 items with it, and 5 are needed"}


def test_the_figures_of_every_classifier_are_recorded_apart_from_those_of_recommenders(place):
    rows = place.lakehouse.read(tables.METRICS).where("run_id = 'first'").toPandas()
    assert set(rows["split"]) == {"labels-validation", "labels-test"}
    assert set(rows["model"]) == {"logistic", "linear-svm", "mlp"}
    assert set(rows["metric"]) == {"map", "f1-macro", "f1-micro", "ece-uncalibrated", "ece"}
    assert rows.loc[rows["metric"] == "map", "mean"].tolist() == pytest.approx([1.0] * 6, rel=1e-12)


def test_the_page_shows_the_longest_shot_and_asks_no_declared_tag(place):
    page = Path(place.lakehouse.path("reports", "first", "review.html")).read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "/9hsb25n" in page  # \xff\xd8long
    asked = pd.read_csv(place.lakehouse.path("reports", "first", "review.csv"))
    assert not ((asked["label"] == "warm") & asked["item_id"].isin([one for one in TAGGED if is_warm(one)])).any()
    assert BARE not in set(asked["item_id"])


def test_nobody_is_asked_about_what_cannot_be_looked_at(place):
    asked = set(pd.read_csv(place.lakehouse.path("reports", "first", "review.csv"))["item_id"])
    assert {"u07", "u08"} <= asked and not asked & {MISSING, CORRUPT}


@pytest.mark.slow
def test_answers_win_over_predictions_and_stay_and_what_is_unchanged_is_not_written_again(place):
    place.run(["labels"], "first")  # does nothing: its own work is no new input
    filled = place.folder / "filled.csv"
    filled.write_text(
        "item_id,uri,label,confidence,decision\nu00,,warm,0.9,no\nu01,,Night,,yes\nt02,,warm,,no\nu99,,warm,,yes\n"
    )
    place.run(["labels"], "second", f"labels.corrections=[{filled}]")
    version = place.lakehouse.version(tables.ITEMS)
    counts = place.manifest("second")["counts"]
    assert (counts["rows_in"], counts["rows_out"], counts["quarantined"], counts["decisions"]) == (76, 75, 1, 3)
    refused = place.lakehouse.read(tables.QUARANTINE).where("run_id = 'second'").collect()
    assert [(row[c.KEY], row[c.REASON]) for row in refused] == [("row#4", "unknown_item")]

    # The list is not named again; a new look at the catalogue comes in between.
    place.run(["catalog", "labels"], "third")
    assert place.lakehouse.version(tables.ITEMS) == version + 1  # by catalog alone
    predicted = place.predicted()
    assert "warm" not in dict(predicted["u00"])
    assert predicted["u01"][0] == ("night", 1.0)
    assert [tag for tag, _ in predicted["u02"]] == ["warm"]
    declared = place.lakehouse.read(tables.ITEMS).where("item_id = 't02'").first()
    assert declared[c.TAGS] == ["warm"]
    asked = pd.read_csv(place.lakehouse.path("reports", "third", "review.csv"))
    assert not ((asked["item_id"] == "u00") & (asked["label"] == "warm")).any()


@pytest.mark.slow
def test_a_catalogue_without_tags_says_so_and_is_left_as_it_is(spark, tmp_path):
    place = Place(spark, tmp_path)
    (tmp_path / "list.csv").write_text("item_id,uri,title\na,a.mp4,A film\nb,b.mp4,Another\n")
    place.run(["catalog"], "r")
    version = place.lakehouse.version(tables.ITEMS)
    place.run(["labels"], "r")
    assert place.lakehouse.version(tables.ITEMS) == version
    assert not place.lakehouse.exists(tables.METRICS)
    counts = place.manifest("r")["counts"]
    assert (counts["rows_in"], counts["rows_out"]) == (2, 2)
