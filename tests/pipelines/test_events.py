"""The job events: layouts it reads, what it refuses, and what restarts and replays change."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from avrec_spark import config, tables
from avrec_spark.errors import DataError, MissingColumnsError, SettingsError
from avrec_spark.events import defences
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import events as job
from avrec_spark.pipelines.job import Context
from avrec_spark.progress import Progress
from tests.pipelines import killing

GOOD = {"user_id": "u", "item_id": "i", "event_type": "view", "timestamp": "2026-01-01T00:00:00Z"}

# Streams wait for their micro-batches: minutes on two cores.
pytestmark = pytest.mark.slow


class Place:
    """A lakehouse of its own. Only the job runs, and not what the runner notes down of it."""

    def __init__(self, spark, tmp_path):
        self.folder = tmp_path / "arriving"
        self.folder.mkdir()
        self.lakehouse = Lakehouse(spark, str(tmp_path / "lakehouse"))
        # The defences take half the time of a run; the test of them switches them on.
        self.settings = [
            f"events.source={self.folder}",
            f"lakehouse.root={self.lakehouse.root}",
            "events.defences.enabled=false",
        ]

    def run(self, run_id, *overrides):
        settings = config.load(overrides=[*self.settings, *overrides], environment={})
        job.JOB.check(settings)
        context = Context(settings, run_id, "events", self.lakehouse.spark, self.lakehouse, None, Progress())
        counts = job.run(context)
        assert counts["rows_in"] == counts["rows_out"] + counts["quarantined"]
        return counts["rows_out"], counts["quarantined"]

    def lines(self, name, *events):
        # As a whole or not at all, as a stream wants it.
        part = self.folder / f"_{name}"
        part.write_text("".join(json.dumps(event) + "\n" for event in events))
        part.rename(self.folder / name)

    def rows(self, table, *columns):
        return sorted(tuple(row) for row in self.lakehouse.read(table).select(*columns).collect())

    def reasons(self, run_id):
        refused = self.lakehouse.read(tables.QUARANTINE).where(f"run_id = '{run_id}'")
        return sorted(row["reason"] for row in refused.collect())


@pytest.fixture
def place(spark, tmp_path):
    return Place(spark, tmp_path)


# -- layouts ---------------------------------------------------------------------------------------------------------


def test_an_export_of_any_layout_is_read_by_settings_alone(place):
    place.lines(
        "app.jsonl",
        {"who": {"id": "u"}, "what": "i", "act": "Heart", "at": 1767225600, "app": {"kind": "Short Video"}},
        {"who": {"id": "v"}, "what": "i", "act": "PLAY", "at": 1767225601, "ms": 4, "app": {"kind": "Live"}},
    )
    mapped = "events.columns={user_id: who.id, item_id: what, event_type: act, timestamp: at, platform: app.kind}"
    place.run("r", mapped, "events.values={event_type: {heart: like, play: view}}")
    assert place.rows(tables.INTERACTIONS, "user_id", "event_type", "weight", "platform") == [
        ("u", "like", 2.0, "short_video"),
        ("v", "view", 1.0, "live"),
    ]


def test_a_list_of_ratings_without_types_is_read_by_a_constant_and_integer_ids_stay_integers(place):
    (place.folder / "ratings.tsv").write_text("user_id\titem_id\trating\ttimestamp\n1\t2\t4\t881250949\n")
    place.run("r", "events.constants={event_type: rating}")
    # A text file cannot say whether 1 is a number: its ids are text.
    assert place.rows(tables.INTERACTIONS, "user_id", "event_type", "rating", "weight") == [("1", "rating", 4.0, 0.8)]


def test_one_folder_may_hold_several_formats_headers_and_compressed_files_and_strangers_are_counted(place):
    (place.folder / "a.csv").write_text("user_id,item_id,event_type,timestamp\na,i,view,2026-01-01\n")
    (place.folder / "b.csv").write_text("item_id,user_id,event_type,timestamp,device\ni,b,like,2026-01-01,tv\n")
    with gzip.open(place.folder / "c.jsonl.gz", "wt") as file:
        file.write(json.dumps(GOOD | {"user_id": "c", "device": "phone"}) + "\n")
    pd.DataFrame([GOOD | {"user_id": "d", "timestamp": pd.Timestamp("2026-01-01")}]).to_parquet(
        place.folder / "d.parquet", coerce_timestamps="us"
    )
    (place.folder / "empty.csv").write_text("")
    (place.folder / "readme.txt").write_text("no event")
    assert place.run("r") == (4, 1)
    assert place.rows(tables.INTERACTIONS, "user_id", "device") == [
        ("a", None),
        ("b", "tv"),
        ("c", "phone"),
        ("d", None),
    ]
    assert place.reasons("r") == ["not_events"]


def test_a_delta_table_is_a_source_and_its_rewriting_changes_nothing(place, spark):
    rows = [GOOD | {"user_id": user} for user in ("u", "v", "w", "w")]
    frame = spark.createDataFrame(pd.DataFrame(rows))
    frame.repartition(2).write.format("delta").mode("overwrite").save(str(place.folder))
    assert place.run("first") == (3, 1)
    frame.coalesce(1).write.format("delta").mode("overwrite").save(str(place.folder))
    assert place.run("second") == (3, 1)


def test_a_mapped_column_that_no_file_has_is_named(place):
    place.lines("a.jsonl", GOOD | {"client": {"device": "tv"}})
    with pytest.raises(MissingColumnsError, match="has no column client.devcie"):
        place.run("r", "events.columns={device: client.devcie}")
    with pytest.raises(SettingsError, match="gadget is no column of an event"):
        place.run("r", "events.columns={gadget: device}")


# -- silver ----------------------------------------------------------------------------------------------------------


def test_an_impression_keeps_what_off_policy_estimates_need(place):
    shown = {"list_id": "l", "position": 3, "experiment_arm": "b", "propensity": 0.25}
    place.lines(
        "a.jsonl",
        GOOD | {"event_type": "impression", **shown},
        GOOD | {"event_type": "impression", **shown, "propensity": 0, "item_id": "j"},
    )
    place.run("r")
    assert place.rows(tables.INTERACTIONS, "list_id", "position", "experiment_arm", "propensity", "weight") == [
        ("l", 3, "b", 0.25, 0.0)
    ]
    assert place.reasons("r") == ["impossible_impression"]


def test_weights_follow_the_watched_share_and_the_age(place):
    viewed = GOOD | {"watch_seconds": 4, "duration": 10}
    place.lines("a.jsonl", viewed, viewed | {"user_id": "v", "timestamp": "2026-01-31T00:00:00Z"})
    place.run("r", "events.half_life_days=30", "events.completed_ratio=0.5")
    assert place.rows(tables.INTERACTIONS, "user_id", "weight", "watch_ratio") == [("u", 0.4, 0.4), ("v", 0.8, 0.4)]


def test_users_that_a_list_does_not_name_are_refused(place, tmp_path):
    (tmp_path / "users.csv").write_text("user_id\nu\n")
    place.lines("a.jsonl", GOOD, GOOD | {"user_id": "v"})
    assert place.run("r", f"events.users={tmp_path / 'users.csv'}") == (1, 1)
    assert place.reasons("r") == ["unknown_user"]


def test_spark_refuses_the_bots_and_floods_that_the_kernel_refuses(place):
    events = attacked()
    place.lines("a.jsonl", *events.to_dict("records"))
    place.run("r", "events.defences.enabled=true")
    kernel = events.assign(timestamp=pd.to_datetime(events["timestamp"], utc=True, format="ISO8601"))
    kernel["opinion"] = kernel["event_type"].map({"like": 1, "dislike": -1}).fillna(0)
    told = defences.defend(kernel, config.DefenceSettings())
    expected = dict(zip(events["event_id"][told.notna()], told.dropna(), strict=True))
    assert set(expected.values()) == {
        "bot_rate",
        "bot_regularity",
        "repeat_flood",
        "address_flood",
        "newcomer_flood",
        "flood_account",
        "profile_ring",
    }
    refused = place.lakehouse.read(tables.QUARANTINE).collect()
    assert {row["key"]: row["reason"] for row in refused} == expected


def attacked():
    """Honest users, a few a day, and one attack of each kind on day 20."""
    start, rows = datetime(2026, 1, 1, tzinfo=UTC), []

    def act(user, item, seconds, address=None, kind="view"):
        time = (start + timedelta(seconds=seconds)).isoformat()
        event = {"user_id": user, "item_id": item, "event_type": kind, "timestamp": time, "address": address}
        rows.append(event | {"event_id": f"e{len(rows)}"})

    day = 86_400
    for user in range(90):
        for turn in range(6):
            act(f"honest{user}", f"i{(user * 7 + turn * turn) % 40}", user // 3 * day + turn * turn * 97, "campus")
    act("honest0", "rare", 600)
    for turn in range(150):
        act("fast", f"i{turn % 40}", 20 * day + turn * 0.3 + turn % 7 * 0.01)
    for turn in range(60):
        act("regular", f"i{turn % 40}", 20 * day + turn * 30)
    for turn in range(230):
        act("fan", "i3", 20 * day + turn * 211 + turn % 5)
    for user in range(12):
        act(f"house{user}", "i5", 20 * day + user * 131, "house")
        act(f"crowd{user}", "rare", 20 * day + user * 131)
        act(f"nuke{user}", "i7", 20 * day + user * 131, kind="dislike")
        act(f"nuke{user}", f"i{user}", 20 * day + user * 171)
    for user in range(6):
        for turn in range(20):
            act(f"ring{user}", f"i{turn}", user * 3 * day + turn * turn * 97, kind="like")
    return pd.DataFrame(rows)


def test_late_events_and_replays_end_in_the_same_table_whatever_their_order(place, tmp_path, spark):
    late, early = GOOD | {"event_id": "e1"}, GOOD | {"event_id": "e2", "timestamp": "2026-02-01", "user_id": "v"}
    columns = ("user_id", "item_id", "timestamp", "event_type", "weight", "event_id")
    place.lines("1.jsonl", early, late)
    place.run("at-once")
    (tmp_path / "second").mkdir()
    other = Place(spark, tmp_path / "second")
    other.lines("1.jsonl", early)
    other.run("r1")
    other.lines("2.jsonl", late)
    other.run("r2")
    other.run("r3")
    assert other.rows(tables.INTERACTIONS, *columns) == place.rows(tables.INTERACTIONS, *columns)


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_keeps_filling_is_taken_file_by_file_and_as_a_batch_would(place, tmp_path, spark):
    place.lines("1 %20 first.jsonl", GOOD, {"item_id": 1}, GOOD | {"user_id": "v"})
    (place.folder / "2.csv").write_text("user_id,item_id,event_type,timestamp\nw,i,like,2026-01-02\n")
    stream = ("events.mode=available-now", "events.stream.files_per_trigger=1")
    assert place.run("r1", *stream) == (3, 1)
    # No column is there that has to be: its records are refused, and the next file is taken all the same.
    place.lines("3.jsonl", {"nothing": "known"})
    place.lines("4.jsonl", GOOD | {"user_id": "x"})
    (place.folder / "5.txt").write_text("no event")
    assert place.run("r2", *stream) == (4, 3)
    (tmp_path / "second").mkdir()
    batch = Place(spark, tmp_path / "second")
    batch.settings[0] = place.settings[0]
    (place.folder / "3.jsonl").unlink()
    batch.run("r")
    taken = [row for row in place.rows(tables.EVENTS, "event_id", "record") if "nothing" not in row[1]]
    assert taken == batch.rows(tables.EVENTS, "event_id", "record")


def test_a_job_that_is_killed_takes_every_file_of_a_folder_once(place, tmp_path):
    events = killing.Job(tmp_path, [*place.settings, "events.stream.files_per_trigger=1"])
    for number in range(3):
        place.lines(f"{number}.jsonl", GOOD | {"user_id": f"u{number}"}, {"item_id": number})
    events.kill("before the merge", 1, "r", "events.mode=available-now")
    events.kill("after the merge", 1, "r", "events.mode=continuous", "events.stream.trigger_seconds=0.1")
    place.lines("3.jsonl", GOOD | {"user_id": "u3"})
    counts = events.run("r", "events.mode=available-now")
    assert (counts["rows_out"], counts["quarantined"]) == (4, 3)
    assert place.rows(tables.INTERACTIONS, "user_id") == [("u0",), ("u1",), ("u2",), ("u3",)]
    assert place.reasons("r") == ["missing_user"] * 3


def test_what_goes_wrong_in_a_micro_batch_is_told_as_itself_and_the_next_run_takes_it(place, monkeypatch):
    take = job._take_files

    def late(context, source, batch):
        content = file.read_text()
        file.unlink()
        try:
            take(context, source, batch)
        finally:
            file.write_text(content)

    file = place.folder / "1.jsonl"
    place.lines(file.name, GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(job, "_take_files", late)
        with pytest.raises(DataError, match="1.jsonl was removed before it was taken"):
            place.run("r", "events.mode=available-now")
    assert place.run("r", "events.mode=available-now") == (1, 0)


def test_the_continuous_mode_follows_until_it_is_idle(place, monkeypatch):
    refresh, refreshed = job._refresh, []

    def watched(*arguments):
        counts = refresh(*arguments)
        refreshed.append(counts["rows_out"])
        if len(refreshed) == 1:
            place.lines("2.jsonl", GOOD | {"user_id": "v"})
        return counts

    monkeypatch.setattr(job, "_refresh", watched)
    place.lines("1.jsonl", GOOD)
    stream = ("events.mode=continuous", "events.stream.trigger_seconds=0.5", "events.stream.stop_after_idle_seconds=5")
    assert place.run("r", *stream) == (2, 0)
    assert refreshed[0] == 1
