"""A library in an object store: described like a local one, known by its checksums, and no credentials are kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import pytest

from avrec_spark import config, tables
from avrec_spark.errors import SettingsError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner
from tests.media import hostile

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ENCODERS = ("palette", "librosa")
# moto takes any; these occur nowhere by chance.
KEY_ID, SECRET = "AKIA5Q2R7VXKZ4TOWB3N", "wJalrXUtnFEMIbPxRfiCYz81dKq"
CLIPS = ("a.mp4", "deep/er/b c.mp4")


class Store:
    """A bucket with two clips and a lakehouse on this machine; what runs say, Spark's own log aside, is in `said`."""

    def __init__(self, spark, s3, root: Path) -> None:
        self.uri = s3.bucket("library-of-films") + "/library"
        self.root, self.cache, self.list = root / "lakehouse", root / "cache", root / "list.csv"
        self.lakehouse = Lakehouse(spark, str(self.root))
        self.said = io.StringIO()
        self.etags = {}
        for number, name in enumerate(CLIPS):
            clip = hostile.encode(root / f"{number}.mp4", seconds=2 + number, size=(64 + 16 * number, 48))
            s3.put(f"{self.uri}/{name}", clip.read_bytes())
            key = f"{self.uri}/{name}".split("/", 3)[3]
            self.etags[f"{self.uri}/{name}"] = s3.client.head_object(Bucket="library-of-films", Key=key)["ETag"][1:-1]
        s3.put(f"{self.uri}/notes.txt", b"Liebes Tagebuch")

    def run(self, run_id: str, source: object) -> dict[str, dict[str, int]]:
        """The counts of each job."""
        overrides = [
            f"catalog.source={source}",
            f"lakehouse.root={self.root}",
            f"features.cache_folder={self.cache}",
            f"features.encoders=[{', '.join(ENCODERS)}]",
        ]
        settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
        log = logging.StreamHandler(self.said)
        logging.getLogger().addHandler(log)
        try:
            with contextlib.redirect_stdout(self.said), contextlib.redirect_stderr(self.said):
                runner.run(["catalog", "features"], settings, run_id)
        finally:
            logging.getLogger().removeHandler(log)
        manifests = self.root / "manifests" / run_id
        return {job: json.loads((manifests / f"{job}.json").read_text())["counts"] for job in ("catalog", "features")}

    def rows(self, table, key: str = "item_id") -> dict[str, dict]:
        rows = [row.asDict() for row in self.lakehouse.read(table).collect()]
        assert len({row[key] for row in rows}) == len(rows)
        return {row[key]: row for row in rows}


@pytest.fixture(scope="module")
def store(spark, s3, tmp_path_factory):
    """The tests of this module go on from each other, like those of test_features.py."""
    import s3fs

    before = dict(spark.sparkContext.environment)
    credentials = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials.items():
            patch.setenv(name, value)
        # fsspec keeps its clients, and with them the credentials that they were made with.
        s3fs.S3FileSystem.clear_instance_cache()
        spark.sparkContext.environment.update(s3.environment | credentials)
        yield Store(spark, s3, tmp_path_factory.mktemp("store"))
    spark.sparkContext.environment.clear()
    spark.sparkContext.environment.update(before)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_of_a_bucket_is_described_and_known_by_its_checksums(store):
    counts = store.run("first", store.uri)

    assert (counts["catalog"]["rows_in"], counts["catalog"]["quarantined"]) == (3, 1)
    assert (counts["features"]["files_decoded"], counts["features"]["rows_out"]) == (2, 2)
    catalog = store.rows(tables.CATALOG, "uri")
    # An object's content is known by its ETag and its size: nothing was downloaded for it.
    assert {uri: row["content_hash"] for uri, row in catalog.items()} == {
        uri: f"etag:{etag}-{catalog[uri]['size']}" for uri, etag in store.etags.items()
    }
    media = store.rows(tables.MEDIA)
    assert {catalog[uri]["item_id"]: "ok" for uri in store.etags} == {
        item: row["status"] for item, row in media.items()
    }
    assert sorted(round(row["duration"]) for row in media.values()) == [2, 3]
    features = store.lakehouse.read(tables.ITEM_FEATURES).where("modality <> 'text'").collect()
    assert sorted((row["item_id"], row["encoder"], row["status"]) for row in features) == sorted(
        (item, encoder, "ok") for item in media for encoder in ENCODERS
    )
    (refused,) = store.rows(tables.QUARANTINE, "key").values()
    assert (refused["reason"], refused["original"]) == ("not_media", f"{store.uri}/notes.txt")


def test_when_nothing_has_changed_nothing_is_decoded(store):
    counts = store.run("second", store.uri)
    assert (counts["features"]["files_decoded"], counts["features"]["rows_out"]) == (0, 2)


def test_a_list_of_objects_tells_known_missing_and_refused_ones_apart(store):
    known, missing = f"{store.uri}/{CLIPS[1]}", f"{store.uri}/never-was.mp4"
    secret = f"s3://{KEY_ID}:{SECRET}@library-of-films/library/a.mp4"
    before = store.rows(tables.CATALOG, "uri")[known]["item_id"]
    # The last row is also the second of its id.
    listed = [f"{known},Known", f"{missing},Missing", f"{secret},Secret", f"{secret},Twice"]
    store.list.write_text("\n".join(["uri,title", *listed]) + "\n")

    counts = store.run("third", store.list)

    assert counts["catalog"] == {"rows_in": 4, "rows_out": 2, "quarantined": 2, "missing": 1, "gone": 1}
    catalog = store.rows(tables.CATALOG, "uri")
    assert (catalog[known]["item_id"], catalog[known]["status"]) == (before, "present")
    assert catalog[missing]["status"] == "missing"
    # The store is asked once more for what is missing; what is known is not decoded.
    assert (counts["features"]["rows_in"], counts["features"]["rows_out"]) == (2, 1)
    described = store.rows(tables.MEDIA)[catalog[missing]["item_id"]]
    assert (described["status"], described["reason"], described["retryable"]) == ("missing", "not_found", True)
    refused = store.lakehouse.read(tables.QUARANTINE).where("run_id = 'third'").collect()
    redacted = ("credentials_in_uri", "s3://***@library-of-films/library/a.mp4")
    assert sorted((row["reason"], row["original"]) for row in refused) == [redacted, redacted, ("not_found", missing)]


def test_a_source_with_credentials_is_refused_without_repeating_them(store):
    with pytest.raises(SettingsError, match=r"s3://\*\*\*@library-of-films and holds credentials") as error:
        store.run("fourth", f"s3://{KEY_ID}:{SECRET}@library-of-films")
    assert SECRET not in str(error.value) and KEY_ID not in str(error.value)


def test_neither_the_secret_nor_the_key_is_kept_or_said_anywhere(store, spark):
    files = [path for root in (store.root, store.cache) for path in root.rglob("*") if path.is_file()]
    told = {"what runs said": store.said.getvalue().encode()} | {str(path): path.read_bytes() for path in files}
    assert any(path.name == "mlflow.db" for path in files) and any(path.suffix == ".block" for path in files)
    # Parquet is compressed: what the tables say, and what earlier versions of them said.
    logs = [path for path in store.root.rglob("_delta_log") if path.is_dir()]
    parts = [path for log in logs for path in log.parent.glob("*.parquet")]
    assert len(parts) >= len(logs) >= 7
    for path in parts:
        rows = spark.read.parquet(str(path)).selectExpr("to_json(struct(*)) AS text").collect()
        told[f"rows of {path}"] = "\n".join(row.text for row in rows).encode()
    assert any(b"s3://***@library-of-films" in text for text in told.values())
    assert [place for place, text in told.items() if SECRET.encode() in text or KEY_ID.encode() in text] == []
