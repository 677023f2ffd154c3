"""What a user reads when something is wrong with the input: one paragraph and the right exit code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from avrec_spark import config, tables
from avrec_spark.errors import (
    DataError,
    EmptyCatalogueError,
    LakehouseError,
    MissingColumnsError,
    MissingPathError,
    MissingTableError,
    SettingsError,
    UsageError,
)
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner

REPOSITORY = Path(__file__).resolve().parent.parent.parent
GOOD = {"user_id": "u", "item_id": "i", "event_type": "view", "timestamp": "2026-01-01T00:00:00Z"}


def settings(tmp_path, *overrides):
    """A lakehouse of its own, and one MLflow store for all tests: making its tables takes seconds."""
    mine = [f"lakehouse.root={tmp_path / 'lakehouse'}", f"tracking.uri=sqlite:///{tmp_path.parent / 'mlflow.db'}"]
    # Bots and floods have tests of their own, and looking for them takes longer than all the rest of the job.
    mine.append("events.defences.enabled=false")
    return config.load(overrides=[*mine, *overrides], environment={})


def write_events(path, *events):
    path.write_text("\n".join(json.dumps(event) for event in events) + "\n")
    return f"events.source={path}"


def test_a_job_with_an_unknown_setting_ends_with_2_before_spark_starts(capsys):
    code = runner.main("catalog", ["--config", str(REPOSITORY / "conf" / "media.yaml"), "--set", "catalog.sorce=x"])
    assert code == 2
    assert "Unknown setting catalog.sorce in" in capsys.readouterr().err.replace("\n", " ")


def test_a_missing_folder_is_named_with_the_setting_that_points_to_it(tmp_path):
    with pytest.raises(MissingPathError) as error:
        runner.run(["catalog"], settings(tmp_path, f"catalog.source={tmp_path / 'nowhere'}"))
    assert str(error.value) == (
        f"catalog.source points to {tmp_path / 'nowhere'}, which does not exist. "
        "Correct the path, for example with --set catalog.source=PATH."
    )
    assert error.value.exit_code == 2


def test_a_source_that_is_not_set_is_asked_for(tmp_path):
    with pytest.raises(SettingsError, match="events.source is not set. Say where to read from"):
        runner.run(["events"], settings(tmp_path))


def test_an_empty_catalogue_says_what_was_looked_for(spark, tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "readme.txt").write_text("no film here")
    with pytest.raises(EmptyCatalogueError, match=r"holds no media item \(looked for mp4, m4v"):
        runner.run(["catalog"], settings(tmp_path, f"catalog.source={tmp_path / 'media'}"))


def test_a_csv_with_a_missing_column_names_the_missing_and_the_present(spark, tmp_path):
    file = tmp_path / "events.csv"
    file.write_text("uid,item_id,event_type,time\nu,i,view,2026-01-01\n")
    with pytest.raises(MissingColumnsError) as error:
        runner.run(["events"], settings(tmp_path, f"events.source={file}"))
    assert "has no column timestamp, user_id; its columns are event_type, item_id, time, uid" in str(error.value)
    assert "--set events.columns.user_id=YOUR_NAME" in str(error.value)


def test_columns_of_another_name_can_be_mapped(spark, tmp_path):
    file = tmp_path / "events.csv"
    file.write_text("uid,item_id,event_type,time\n007,i,view,2026-01-01\n")
    mapped = settings(tmp_path, f"events.source={file}", "events.columns={user_id: uid, timestamp: time}")
    runner.run(["events"], mapped, "r")
    row = Lakehouse(spark, mapped.lakehouse.root).read(tables.INTERACTIONS).first()
    assert (row["user_id"], row["item_id"], row["weight"]) == ("007", "i", 1.0)


def test_a_catalogue_list_without_uri_is_refused(spark, tmp_path):
    file = tmp_path / "catalog.csv"
    file.write_text("url,title\na.mp4,A\n")
    with pytest.raises(MissingColumnsError, match="has no column uri; its columns are title, url"):
        runner.run(["catalog"], settings(tmp_path, f"catalog.source={file}"))


def test_a_list_row_without_a_file_or_with_a_known_id_goes_to_quarantine(spark, tmp_path):
    with open(tmp_path / "catalog.csv", "w", newline="") as file:
        csv.writer(file).writerows([["item_id", "uri"], ["a", "a.mp4"], ["a", "b.mp4"], ["c", ""], ["", "d.mp4"]])
    mine = settings(tmp_path, f"catalog.source={tmp_path / 'catalog.csv'}")
    runner.run(["catalog"], mine, "r")
    lakehouse = Lakehouse(spark, mine.lakehouse.root)
    assert [row["item_id"] for row in lakehouse.read(tables.CATALOG).collect()] == ["a"]
    reasons = sorted(row["reason"] for row in lakehouse.read(tables.QUARANTINE).collect())
    assert reasons == ["duplicate_item", "missing_item", "missing_uri"]


def test_events_on_unknown_items_go_to_quarantine_with_their_text(spark, tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "i.mp4").write_bytes(b"x")
    with open(tmp_path / "catalog.csv", "w", newline="") as file:
        csv.writer(file).writerows([["item_id", "uri"], ["i", "media/i.mp4"]])
    source = write_events(tmp_path / "events.jsonl", GOOD, GOOD | {"item_id": "elsewhere"})
    mine = settings(tmp_path, source, f"catalog.source={tmp_path / 'catalog.csv'}")
    runner.run(["catalog", "events"], mine, "r")
    refused = Lakehouse(spark, mine.lakehouse.root).read(tables.QUARANTINE).collect()
    assert [row["reason"] for row in refused] == ["unknown_item"]
    assert json.loads(refused[0]["original"])["item_id"] == "elsewhere"


def test_events_of_which_none_is_usable_end_the_job_with_202(spark, tmp_path):
    source = write_events(tmp_path / "events.jsonl", GOOD | {"event_type": "teleport"})
    with pytest.raises(DataError, match="None of the 1 events") as error:
        runner.run(["events"], settings(tmp_path, source), "r")
    assert error.value.exit_code == 202
    manifest = json.loads((tmp_path / "lakehouse" / "manifests" / "r" / "events.json").read_text())
    assert (manifest["status"], manifest["exit_code"]) == ("failed", 202)


def test_a_run_that_failed_is_recorded_and_may_be_tried_again_once_its_input_is_mended(spark, tmp_path):
    lakehouse = Lakehouse(spark, str(tmp_path / "lakehouse"))

    def recorded():
        return [(row["job"], row["status"]) for row in lakehouse.read(tables.JOB_RUNS).collect()]

    source = write_events(tmp_path / "events.jsonl", GOOD | {"event_type": "teleport"})
    with pytest.raises(DataError):
        runner.run(["events"], settings(tmp_path, source), "r")
    assert recorded() == [("events", "failed")]
    write_events(tmp_path / "events.jsonl", GOOD)
    runner.run(["events"], settings(tmp_path, source), "r")
    assert recorded() == [("events", "done")]


def test_integer_ids_stay_the_integers_that_they_are(spark, tmp_path):
    large = 2**53 + 1
    source = write_events(
        tmp_path / "events.jsonl",
        GOOD | {"user_id": large, "item_id": 9},
        GOOD | {"user_id": None, "item_id": 9},
    )
    mine = settings(tmp_path, source)
    runner.run(["events"], mine, "r")
    interactions = Lakehouse(spark, mine.lakehouse.root).read(tables.INTERACTIONS)
    types = dict(interactions.dtypes)
    assert (types["user_id"], types["item_id"]) == ("bigint", "bigint")
    # A float could not hold it, as pandas would beside the null.
    assert [row["user_id"] for row in interactions.collect()] == [large]


def test_the_order_of_the_files_and_a_replay_change_nothing(spark, tmp_path):
    (tmp_path / "events").mkdir()
    write_events(tmp_path / "events" / "a.jsonl", GOOD, GOOD | {"user_id": "v"})
    source = f"events.source={tmp_path / 'events'}"
    runner.run(["events"], settings(tmp_path, source), "r1")
    write_events(tmp_path / "events" / "b.jsonl", GOOD | {"user_id": "v"}, GOOD | {"user_id": "w"})
    runner.run(["events"], settings(tmp_path, source), "r2")
    lakehouse = Lakehouse(spark, str(tmp_path / "lakehouse"))
    assert sorted(row["user_id"] for row in lakehouse.read(tables.INTERACTIONS).collect()) == ["u", "v", "w"]
    assert [row["reason"] for row in lakehouse.read(tables.QUARANTINE).collect()] == ["duplicate"]


def test_records_that_share_an_event_id_are_all_counted_and_a_mended_one_takes_its_place(spark, tmp_path):
    shared = GOOD | {"event_id": "e"}
    source = write_events(tmp_path / "e.jsonl", shared, shared, shared | {"user_id": "v"}, GOOD | {"timestamp": "soon"})
    runner.run(["events"], settings(tmp_path, source), "r1")
    lakehouse = Lakehouse(spark, str(tmp_path / "lakehouse"))

    def users_and_reasons(run):
        refused = lakehouse.read(tables.QUARANTINE).where(f"run_id = '{run}'").collect()
        taken = lakehouse.read(tables.INTERACTIONS).collect()
        return sorted(row["user_id"] for row in taken), sorted(row["reason"] for row in refused)

    assert users_and_reasons("r1") == (["u", "v"], ["bad_timestamp", "duplicate"])
    write_events(tmp_path / "e.jsonl", shared, shared, shared | {"user_id": "v"}, GOOD | {"user_id": "w"})
    runner.run(["events"], settings(tmp_path, source), "r2")
    assert users_and_reasons("r2") == (["u", "v", "w"], ["duplicate"])


def test_a_missing_table_names_the_job_that_writes_it(spark, tmp_path):
    with pytest.raises(MissingTableError, match="ops.snapshots does not exist .* avrec run snapshot"):
        runner.run(["train"], settings(tmp_path), "r")


def test_an_unknown_model_parameter_or_job_is_told_with_the_nearest_name(tmp_path):
    with pytest.raises(SettingsError, match="There is no model fuson. Did you mean fusion?"):
        runner.run(["train"], settings(tmp_path, "train.models=[fuson]"))
    with pytest.raises(SettingsError, match="The model ease has no parameter regularization. Did you mean regularis"):
        runner.run(["train"], settings(tmp_path, "train.parameters.ease.regularization=5.0"))
    with pytest.raises(UsageError, match="There is no job or pipeline dayly. Did you mean daily?"):
        runner.expand("dayly")


@pytest.mark.parametrize("run_id", ["../up", "a b", "", ".hidden"])
def test_a_run_id_that_is_no_folder_name_is_refused(run_id):
    with pytest.raises(UsageError, match="is not usable"):
        runner.check_run_id(run_id)


def test_a_lakehouse_that_cannot_be_written_is_named_before_spark_starts(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(LakehouseError) as error:
        runner.run(
            ["events"], settings(tmp_path, write_events(tmp_path / "e.jsonl", GOOD), f"lakehouse.root={blocked}/x")
        )
    assert str(error.value).startswith(f"The lakehouse {blocked}/x cannot be written: ")
    assert error.value.exit_code == 202


def crowded(daily, run_id, *overrides):
    """Arguments for a job train whose ranks are more than there are slots."""
    mine = [f"lakehouse.root={daily.settings.lakehouse.root}", "train.models=[mf]", *overrides]
    words = [word for setting in mine for word in ("--set", setting)]
    return ["--config", "tests/conf/small.yaml", "--run-id", run_id, *words]


def test_fewer_slots_than_ranks_fail_instead_of_hanging_and_name_both_numbers(daily, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert runner.main("train", crowded(daily, "crowded", "train.workers=3")) == 203
    told = " ".join(capsys.readouterr().err.split())
    assert "needs 3 task slots at once, one a rank, and local[2,4] has 2 free" in told


@pytest.mark.slow
def test_fewer_slots_than_ranks_fail_by_spark_submit_too(daily):
    """One slot, two ranks, on one machine."""
    spark_home = Path(pyspark.__file__).parent
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_HOME": str(spark_home)}
    submit = [spark_home / "bin" / "spark-submit", "--properties-file", "conf/spark/local.conf", "--master", "local[1]"]
    done = subprocess.run(
        [*submit, "jobs/train.py", *crowded(daily, "crowded-too")],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith(("AVREC_", "PYSPARK_"))} | python,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # spark-submit passes what Python says on, all of it to its own standard output.
    told = (done.stdout + done.stderr).replace("\n", " ")
    assert done.returncode == 203, told[-2000:]
    assert "needs 2 task slots at once, one a rank, and local[1] has 1 free" in told
