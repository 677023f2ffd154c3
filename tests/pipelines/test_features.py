"""Waste nothing: what is known is not computed again, whatever files are called and wherever a run broke off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from avrec_spark import config, tables
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from tests.media import hostile

REPOSITORY = Path(__file__).resolve().parent.parent.parent
JOBS = ["catalog", "features"]


class Library:
    """A folder of small clips and a lakehouse of its own."""

    def __init__(self, spark, root: Path, *overrides: str) -> None:
        self.folder, self.root = root / "media", root / "lakehouse"
        self.folder.mkdir()
        self.lakehouse = Lakehouse(spark, str(self.root))
        self.overrides = [f"catalog.source={self.folder}", f"lakehouse.root={self.root}", *overrides]

    def settings(self, *overrides: str) -> config.Settings:
        return config.load(REPOSITORY / "conf" / "media.yaml", [*self.overrides, *overrides], environment={})

    def run(self, run_id: str, *overrides: str) -> dict[str, int]:
        """The counts of the features job."""
        runner.run(JOBS, self.settings(*overrides), run_id)
        return json.loads((self.root / "manifests" / run_id / "features.json").read_text())["counts"]

    def manifest(self, run_id: str) -> dict[str, object]:
        return json.loads((self.root / "manifests" / run_id / "features.json").read_text())

    def rows(self, table) -> list[dict]:
        return [row.asDict() for row in self.lakehouse.read(table).collect()]

    def ids(self) -> dict[str, str]:
        there = self.lakehouse.read(tables.CATALOG).where(F.col("status") == "present").collect()
        return {Path(row["uri"]).name: row["item_id"] for row in there}


PALETTE = "features.encoders=[palette]"


@pytest.fixture(scope="module")
def library(spark, tmp_path_factory):
    """Three clips and a long one, described; the tests of this module go on from there, each from the one before."""
    library = Library(spark, tmp_path_factory.mktemp("library"), "features.range_seconds=30")
    for number in range(3):
        hostile.encode(library.folder / f"{number}.mp4", seconds=2 + number, size=(64 + 16 * number, 48))
    hostile.encode(library.folder / "long.mp4", seconds=70, size=(48, 48), gop=20)
    library.first = library.run("first", PALETTE)
    return library


def test_a_first_run_describes_every_file_and_says_what_it_cost(library):
    assert (library.first["files_decoded"], library.first["rows_in"], library.first["rows_out"]) == (4, 4, 4)
    cost = library.manifest("first")["cost"]
    assert cost["files"] == 4 and cost["predicted_core_seconds"] > 0 and cost["actual_core_seconds"] > 0
    shots = library.lakehouse.read(tables.SHOTS).collect()
    assert {row["transition"] for row in shots} == {"start"} and all(row["key_scene"] for row in shots)


def test_a_long_file_is_described_in_ranges_by_several_tasks(library):
    long = library.ids()["long.mp4"]
    (media,) = [row for row in library.rows(tables.MEDIA) if row["item_id"] == long]
    assert (media["parts"], media["status"], media["gop"]) == (3, "ok", 20)
    assert media["seconds_decoded"] == pytest.approx(70, abs=0.2)
    assert [row["item_id"] for row in library.rows(tables.SHOTS)].count(long) == 1


def test_an_unchanged_file_is_not_opened_again(library):
    assert library.run("unchanged", PALETTE)["files_decoded"] == 0


def test_an_added_encoder_leaves_the_others_and_older_versions_of_them_alone(library):
    def palette():
        rows = [row for row in library.rows(tables.ITEM_FEATURES) if row["encoder"] == "palette"]
        return sorted((row["item_id"], row["parameters_hash"], row["frames_decoded"]) for row in rows)

    row = library.lakehouse.read(tables.ITEM_FEATURES).where("encoder = 'palette'").limit(1)
    old = row.withColumn("encoder_version", F.lit("0")).withColumn("parameters_hash", F.lit("old"))
    library.lakehouse.merge(tables.ITEM_FEATURES, old)
    before = palette()
    counts = library.run("added", "features.encoders=[palette, librosa]")

    assert counts["files_decoded"] == 4 and palette() == before and len(before) == 5
    heard = [row for row in library.rows(tables.ITEM_FEATURES) if row["encoder"] == "librosa"]
    # Nothing but the sound was decoded for it.
    assert [(row["frames_decoded"], row["status"]) for row in heard] == [(0, "ok")] * 4
    assert all(row["attempts"] == 1 for row in library.rows(tables.MEDIA))
    # The ranges of the long file lie behind one another.
    windows = [row for row in library.rows(tables.SEGMENT_FEATURES) if row["item_id"] == library.ids()["long.mp4"]]
    assert sorted(row["start"] for row in windows if row["encoder"] == "librosa") == [0, 10, 20, 30, 40, 50, 60]


def test_bad_files_are_counted_told_by_reason_and_retried_only_where_that_can_help(library, tmp_path):
    bad = {
        "empty.mp4": "empty",
        "diary.mp4": "not_media",
        "pipe.mp4": "not_a_file",
        "dangling.mp4": "not_found",
    }
    (library.folder / "empty.mp4").touch()
    (library.folder / "diary.mp4").write_text("Dear diary\n" * 99)
    os.mkfifo(library.folder / "pipe.mp4")
    (library.folder / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")

    counts = library.run("bad", PALETTE)

    assert (counts["rows_in"], counts["rows_out"], counts["quarantined"]) == (8, 4, 4)
    refused = library.lakehouse.read(tables.QUARANTINE).where("run_id = 'bad'").collect()
    assert {Path(row["original"]).name: row["reason"] for row in refused} == bad
    # The others are not even opened again.
    shutil.copy(library.folder / "1.mp4", tmp_path / "nowhere.mp4")
    mended = library.run("mended", PALETTE)
    assert (mended["quarantined"], mended["files_decoded"], mended["items_copied"]) == (3, 0, 1)
    for name in bad:
        (library.folder / name).unlink()


def test_a_renamed_file_keeps_its_id_and_its_features(library):
    before = library.ids()["0.mp4"]
    (library.folder / "0.mp4").rename(library.folder / "renamed.mp4")

    counts = library.run("renamed", PALETTE)

    assert library.ids()["renamed.mp4"] == before
    assert (counts["files_decoded"], counts["items_copied"], counts["rows_in"]) == (0, 0, 4)


def test_an_edited_file_keeps_its_id_one_of_an_old_name_gets_its_own_and_a_removed_one_keeps_its_features(library):
    before = library.ids()
    hostile.encode(library.folder / "renamed.mp4", seconds=1, size=(48, 48))
    shutil.copy(library.folder / "1.mp4", library.folder / "0.mp4")
    (library.folder / "2.mp4").unlink()

    counts = library.run("changed", PALETTE)

    # The content of 0.mp4 is known from its twin.
    assert (counts["files_decoded"], counts["items_copied"]) == (1, 1)
    ids = library.ids()
    assert ids["renamed.mp4"] == before["renamed.mp4"]
    assert len(ids) == len(set(ids.values())) == 4
    media = {row["item_id"]: row for row in library.rows(tables.MEDIA)}
    assert media[ids["0.mp4"]]["duration"] == media[ids["1.mp4"]]["duration"]
    assert media[ids["0.mp4"]]["status"] == "ok"
    removed = before["2.mp4"]
    assert {row["item_id"]: row["status"] for row in library.rows(tables.CATALOG)}[removed] == "gone"
    assert removed in {row["item_id"] for row in library.rows(tables.ITEM_FEATURES)}


@pytest.fixture
def dozen(spark, tmp_path):
    """Twelve clips, which are described in waves of a few."""
    library = Library(spark, tmp_path, PALETTE, "features.commit_seconds=0.3")
    for number in range(12):
        hostile.encode(library.folder / f"{number}.mp4", seconds=1, size=(48 + 2 * number, 48), layout=None)
    return library


def assert_goes_on(library):
    """Another run describes what an earlier one has not finished, and no more."""
    done = {row["item_id"] for row in library.rows(tables.ITEM_FEATURES)}
    assert 0 < len(done) < 12

    counts = library.run("second", "features.commit_seconds=300")

    assert counts["files_decoded"] == 12 - len(done)
    features = library.rows(tables.ITEM_FEATURES)
    assert len(features) == len({row["item_id"] for row in features}) == 12
    media = library.rows(tables.MEDIA)
    assert len(media) == 12 and {row["status"] for row in media} == {"ok"}
    assert (counts["rows_in"], counts["rows_out"]) == (12, 12)


def test_a_run_that_breaks_off_goes_on_after_what_it_had_committed(dozen, monkeypatch):
    append, appended = Lakehouse.append, []

    def breaking(lakehouse, table, frame):
        if table.name in appended and table is tables.ITEM_FEATURES:
            # Of the second wave all tables are written but this, which says that a file is finished.
            assert {"shots", "segment_features", "media"} <= set(appended[appended.index(table.name) :])
            raise KeyboardInterrupt
        append(lakehouse, table, frame)
        appended.append(table.name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lakehouse, "append", breaking)
        dozen.run("first")
    assert_goes_on(dozen)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_after_what_it_had_committed(dozen):
    arguments = [f"--set={override}" for override in dozen.overrides]
    command = [str(Path(sys.executable).with_name("avrec")), "run", "media", "--config", "conf/media.yaml", *arguments]
    driver = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        committed = dozen.root / "gold" / "item_features" / "_delta_log" / f"{1:020}.json"
        deadline = time.monotonic() + 120
        while not committed.exists() and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert committed.exists(), "the run ended before it could be killed"
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert_goes_on(dozen)
