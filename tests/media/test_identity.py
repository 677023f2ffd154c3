from __future__ import annotations

import hashlib

import pytest

from avrec_spark.media.identity import _stored_name, content_hash
from avrec_spark.media.records import Limits, Refusal


def test_the_hash_is_that_of_the_bytes_whatever_the_name(tmp_path):
    content = b"same bytes" * 300_000
    first, second = tmp_path / "a.mp4", tmp_path / "b c.bin"
    first.write_bytes(content)
    second.write_bytes(content)

    assert content_hash(first) == content_hash(second.as_uri()) == hashlib.sha256(content).hexdigest()


def test_a_changed_byte_changes_the_hash(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    before = content_hash(path)
    path.write_bytes(b"two")
    assert content_hash(path) != before


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path, reason in ((tmp_path / "gone", "not_found"), (tmp_path, "unreadable")):
        with pytest.raises(Refusal) as caught:
            content_hash(path)
        assert (caught.value.status, caught.value.reason) == ("missing", reason)


def test_an_object_has_a_name_without_being_downloaded(s3, monkeypatch):
    def never(*_, **__):
        raise AssertionError("downloaded")

    bucket = s3.bucket("identity")
    for name, content in (("a.bin", b"hello"), ("b.bin", b"hello"), ("c.bin", b"hallo")):
        s3.put(f"{bucket}/{name}", content)
    monkeypatch.setattr("s3fs.core._fetch_range", never)
    # The MD5 of "hello", and its length.
    assert content_hash(f"{bucket}/a.bin") == "etag:5d41402abc4b2a76b9719d911017c592-5"
    assert content_hash(f"{bucket}/b.bin") == content_hash(f"{bucket}/a.bin") != content_hash(f"{bucket}/c.bin")


def test_an_object_of_several_parts_is_named_by_the_hash_of_their_hashes(s3):
    bucket, parts = s3.bucket("multipart"), [b"a" * 5 * 2**20, b"b"]
    upload = s3.client.create_multipart_upload(Bucket="multipart", Key="a.bin")["UploadId"]
    place = {"Bucket": "multipart", "Key": "a.bin", "UploadId": upload}
    etags = [s3.client.upload_part(**place, PartNumber=n + 1, Body=part)["ETag"] for n, part in enumerate(parts)]
    done = [{"PartNumber": number + 1, "ETag": etag} for number, etag in enumerate(etags)]
    s3.client.complete_multipart_upload(**place, MultipartUpload={"Parts": done})
    both = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    assert content_hash(f"{bucket}/a.bin") == f"etag:{both}-2-{5 * 2**20 + 1}"


def test_where_a_store_keeps_no_checksum_the_bytes_are_read():
    import fsspec

    content = b"same bytes" * 500_000
    fsspec.filesystem("memory").pipe("/a.bin", content)
    limits = Limits(protocols=("memory",), cache_mib=0)
    assert content_hash("memory://a.bin", limits) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("protocol", "info"),
    [
        ("gs", {"md5Hash": "XUFAKrxLKna5cZ2REBfFkg=="}),
        ("abfs", {"content_settings": {"content_md5": bytearray.fromhex("5d41402abc4b2a76b9719d911017c592")}}),
    ],
)
def test_the_checksums_of_other_stores_give_one_name(protocol, info):
    assert _stored_name(protocol, info) == "md5:5d41402abc4b2a76b9719d911017c592"


@pytest.mark.parametrize("info", [{"crc32c": "yZRlqg=="}, {"ETag": '"0x8DA"'}, {"md5Hash": None}, {}])
def test_what_is_no_checksum_of_the_content_gives_no_name(info):
    assert [_stored_name(protocol, info) for protocol in ("s3", "gs", "abfs", "http")] == [None] * 4
