"""Folders that a source setting names, on the local disk and in an object store."""

from __future__ import annotations

import logging
import os

import pytest

from avrec_spark.errors import AvrecError, MissingExtraError, MissingPathError, RetryableError, SettingsError
from avrec_spark.pipelines import sources
from avrec_spark.pipelines.sources import SourceFile


def requests_in(log: pytest.LogCaptureFixture) -> list[str]:
    """The method and path of every request that moto's server has answered, without the query."""
    lines = [record.getMessage() for record in log.records if record.name == "werkzeug"]
    return [line.split('"')[1].split("?")[0] for line in lines]


def test_the_files_of_a_local_folder_are_absolute_paths_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/a.mp4", "c.mp4", ".hidden"):
        (tmp_path / name).write_bytes(b"123")
        os.utime(tmp_path / name, (1000.5, 1000.5))
    expected = [
        SourceFile(str(tmp_path / "b/a.mp4"), "b/a.mp4", 3, 1000.5),
        SourceFile(str(tmp_path / "c.mp4"), "c.mp4", 3, 1000.5),
    ]
    assert sources.files(str(tmp_path)) == sources.files(f"{tmp_path}/") == sources.files(tmp_path.as_uri()) == expected
    assert sources.files(str(tmp_path / "c.mp4")) == expected[1:]


def test_the_files_of_a_bucket_are_uris_with_size_and_version(s3):
    bucket = s3.bucket("listed")
    for name in ("films/b/a.mp4", "films/c.mp4", "films/.hidden/d.mp4", "films/folder/", "other.mp4"):
        s3.put(f"{bucket}/{name}", b"hello" if "c.mp4" in name else b"")
    for source in (f"{bucket}/films", f"{bucket}/films/"):
        first, second = sources.files(source)
        assert (first.uri, first.relative, first.size) == (f"{bucket}/films/b/a.mp4", "b/a.mp4", 0)
        assert (second.uri, second.relative, second.size) == (f"{bucket}/films/c.mp4", "c.mp4", 5)
        # The MD5 of "hello".
        assert second.version == "5d41402abc4b2a76b9719d911017c592"
        assert second.modified_at > 1_600_000_000
    assert [file.relative for file in sources.files(bucket)] == ["films/b/a.mp4", "films/c.mp4", "other.mp4"]
    assert [file.uri for file in sources.files(f"{bucket}/other.mp4")] == [f"{bucket}/other.mp4"]
    assert [file.uri for file in sources.files("s3a://listed/films")][1] == "s3a://listed/films/c.mp4"


def test_one_listing_tells_of_all_files(s3, caplog):
    bucket = s3.bucket("once")
    for number in range(50):
        s3.put(f"{bucket}/films/{number}.mp4", b"1")
    caplog.clear()
    with caplog.at_level(logging.INFO, "werkzeug"):
        assert len(sources.files(f"{bucket}/films")) == 50
    assert [request for request in requests_in(caplog) if ".mp4" in request] == []
    assert len(requests_in(caplog)) <= 3


def test_a_later_listing_is_a_fresh_one(s3):
    bucket = s3.bucket("fresh")
    s3.put(f"{bucket}/a.mp4", b"1")
    before = sources.fingerprint(bucket)
    assert sources.fingerprint(bucket) == before
    s3.put(f"{bucket}/a.mp4", b"2")
    assert sources.fingerprint(bucket) != before


def test_a_source_must_be_there(s3, tmp_path):
    bucket = s3.bucket("required")
    s3.put(f"{bucket}/films/a.mp4", b"1")
    for source in (str(tmp_path), bucket, f"{bucket}/films"):
        assert sources.require("catalog.source", source) == source
    for source in (str(tmp_path / "gone"), f"{bucket}/gone", "s3://no-such-bucket/films"):
        with pytest.raises(MissingPathError, match="catalog.source points to .*, which does not exist"):
            sources.require("catalog.source", source)
    with pytest.raises(SettingsError, match="catalog.source is not set"):
        sources.require("catalog.source", None)


def test_a_source_with_credentials_is_refused_without_showing_them():
    with pytest.raises(SettingsError, match="catalog.source is s3://\\*\\*\\*@films/a and holds credentials") as caught:
        sources.require("catalog.source", "s3://AKIAEXAMPLE:wJalr/XUtnFEMI@films/a")
    assert "wJalr" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (PermissionError("the key wJalr was refused"), AvrecError, "PermissionError"),
        (ConnectionResetError(104, "wJalr"), RetryableError, r"ConnectionResetError \(ECONNRESET\)"),
    ],
)
def test_a_store_that_fails_is_told_by_class_and_code_and_whether_to_try_again(s3, monkeypatch, error, kind, code):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("s3fs.S3FileSystem.find", fails)
    bucket = s3.bucket(f"failing-{kind.__name__.lower()}")
    with pytest.raises(AvrecError, match=f"{bucket} cannot be listed: {code}") as caught:
        sources.files(bucket)
    assert type(caught.value) is kind
    assert "wJalr" not in str(caught.value)


def test_a_store_without_its_library_names_the_extra(monkeypatch):
    def absent(protocol):
        raise ImportError(protocol)

    monkeypatch.setattr("fsspec.get_filesystem_class", absent)
    with pytest.raises(MissingExtraError, match=r"gcsfs.*avrec-spark\[gcs\]"):
        sources.require("catalog.source", "gs://films")
