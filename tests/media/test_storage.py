"""Files of object stores, against moto's S3 on loopback; places without versions, with fsspec's memory file system."""

from __future__ import annotations

import os
import threading
import wave
from pathlib import Path

import pytest

from avrec_spark.errors import MissingExtraError
from avrec_spark.media.blocks import BLOCK, BlockCache
from avrec_spark.media.records import Limits, Refusal
from avrec_spark.media.source import open_container, stat
from avrec_spark.media.storage import FileState, RemoteFile, class_and_code, redacted

MIB = 2**20
SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return Limits(cache_folder=str(tmp_path / "cache"), protocols=("file", "s3", "memory"))


@pytest.fixture
def fetched(monkeypatch) -> list[tuple[int, int]]:
    """The byte ranges that are asked of S3, as they are asked."""
    import s3fs.core

    ranges: list[tuple[int, int]] = []
    fetch = s3fs.core._fetch_range

    def spy(fs, bucket, key, version, start, end, **options):
        ranges.append((start, end))
        return fetch(fs, bucket, key, version, start, end, **options)

    monkeypatch.setattr(s3fs.core, "_fetch_range", spy)
    return ranges


@pytest.fixture
def memory():
    """fsspec's file system in memory, which cannot be asked for one version of a file."""
    import fsspec

    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


def refusal(act) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


def noise(size: int, seed: int = 0) -> bytes:
    import random

    return random.Random(seed).randbytes(size)


# -- reading by range --------------------------------------------------------------------------------------------------


def test_a_remote_file_reads_like_a_local_one(s3, limits):
    content = noise(2 * BLOCK + 1000)
    uri = s3.bucket("like-local") + "/a.bin"
    s3.put(uri, content)
    file = RemoteFile(uri, limits)
    assert file.seek(-1000, os.SEEK_END) == 2 * BLOCK
    assert file.read(10) == content[2 * BLOCK : 2 * BLOCK + 10]
    assert file.seek(5, os.SEEK_CUR) == file.tell() == 2 * BLOCK + 15
    file.seek(BLOCK - 3)
    assert file.read(3) + file.read(3) == content[BLOCK - 3 : BLOCK + 3]
    file.seek(0)
    assert file.read() == content
    assert file.read(1) == b""


def test_only_the_blocks_that_are_looked_at_are_fetched(s3, limits, fetched):
    uri = s3.bucket("ranges") + "/a.bin"
    s3.put(uri, bytes(3 * BLOCK + 1))
    file = RemoteFile(uri, limits)
    assert fetched == []
    file.read(100)
    file.seek(-1, os.SEEK_END)
    file.read(100)
    assert fetched == [(0, BLOCK), (3 * BLOCK, 3 * BLOCK + 1)]


def test_the_header_of_a_film_is_read_without_the_film_where_its_index_lies_at_the_end(s3, limits, fetched, make_clip):
    clip = make_clip(seconds=2.0, faststart=False).read_bytes()
    # A box that players skip makes it large, as pictures would.
    index = clip.index(b"moov") - 4
    skipped = (12 * MIB).to_bytes(4, "big") + b"free" + bytes(12 * MIB - 8)
    uri = s3.bucket("header") + "/film.mp4"
    s3.put(uri, clip[:index] + skipped + clip[index:])
    with open_container(uri, limits) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (160, 120)
        assert container.duration / 1e6 == pytest.approx(2.0, abs=0.1)
    assert {start for start, _ in fetched} == {0, 3 * BLOCK}


def test_a_film_of_an_object_store_is_decoded_like_the_local_one(s3, limits, make_clip):
    clip = make_clip(seconds=2.0)
    uri = s3.bucket("decoded") + "/film.mp4"
    s3.put(uri, clip.read_bytes())
    with open_container(uri, limits) as there, open_container(str(clip), limits) as here:
        frames = [[frame.to_ndarray(format="gray") for frame in c.decode(video=0)] for c in (there, here)]
    assert len(frames[0]) == len(frames[1]) == 40
    assert all((one == other).all() for one, other in zip(*frames, strict=True))


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_what_was_fetched_once_is_not_fetched_by_the_next_reader(s3, limits, fetched):
    content = noise(BLOCK + 10)
    uri = s3.bucket("cached") + "/a.bin"
    s3.put(uri, content)
    assert RemoteFile(uri, limits).read() == content
    assert len(fetched) == 2
    assert RemoteFile(uri, limits).read() == content
    assert len(fetched) == 2


def test_a_cache_of_no_size_writes_nothing(s3, tmp_path, fetched):
    uri = s3.bucket("uncached") + "/a.bin"
    s3.put(uri, b"content")
    limits = Limits(cache_folder=str(tmp_path / "cache"), cache_mib=0)
    assert [RemoteFile(uri, limits).read() for _ in range(2)] == [b"content"] * 2
    assert len(fetched) == 2
    assert not (tmp_path / "cache").exists()


def test_a_new_version_is_not_answered_with_blocks_of_the_old_one(s3, limits):
    uri = s3.bucket("versions") + "/a.bin"
    s3.put(uri, b"old content")
    assert RemoteFile(uri, limits).read() == b"old content"
    s3.put(uri, b"new content")
    assert RemoteFile(uri, limits).read() == b"new content"


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"#" + data[1:], lambda data: b""])
def test_a_damaged_block_is_fetched_again(s3, limits, fetched, damage, request):
    uri = s3.bucket(f"damage-{abs(hash(request.node.name))}") + "/a.bin"
    s3.put(uri, b"content")
    RemoteFile(uri, limits).read()
    (block,) = Path(limits.cache_folder).rglob("*.block")
    block.write_bytes(damage(block.read_bytes()))
    assert RemoteFile(uri, limits).read() == b"content"
    assert len(fetched) == 2


def test_the_cache_keeps_its_bound_and_what_was_used_last(tmp_path):
    cache = BlockCache(str(tmp_path), mib=1)
    third = MIB // 3 - 8
    for number, name in enumerate("abc"):
        cache.put(name, name.encode() * third)
        _used(tmp_path, number)
    assert cache.get("a", third) == b"a" * third
    cache.put("d", b"d" * third)
    assert [name for name in "abcd" if cache.get(name, third)] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.block")) <= MIB


def _used(folder: Path, number: int) -> None:
    """Let the block that has no such time yet be used at second `number` of 1970, and so before all that follow."""
    for path in folder.rglob("*.block"):
        if path.stat().st_mtime > 1000:
            os.utime(path, (number, number))


def test_a_block_larger_than_the_cache_displaces_nothing(tmp_path):
    cache = BlockCache(str(tmp_path), mib=1)
    cache.put("small", b"1")
    cache.put("large", bytes(MIB))
    assert cache.get("small", 1) == b"1"
    assert cache.get("large", MIB) is None


def test_what_killed_processes_left_is_removed_and_other_files_are_not(tmp_path):
    cache = BlockCache(str(tmp_path), mib=1)
    left = tmp_path / "blocks" / "left.part"
    left.write_bytes(bytes(MIB))
    os.utime(left, (0, 0))
    notes = tmp_path / "blocks" / "notes.txt"
    notes.write_bytes(bytes(MIB))
    cache.put("a", b"1")
    assert not left.exists()
    assert notes.exists()


def test_a_full_disk_costs_the_cache_and_not_the_decode(s3, limits, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    uri = s3.bucket("full-disk") + "/a.bin"
    s3.put(uri, b"content")
    monkeypatch.setattr("avrec_spark.media.blocks.os.replace", full)
    assert RemoteFile(uri, limits).read() == b"content"
    assert list((Path(limits.cache_folder) / "blocks").iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_the_cache_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = BlockCache(str(tmp_path / "file"), mib=1)
    cache.put("a", b"1")
    assert cache.get("a", 1) is None


def test_a_temporary_folder_that_another_user_owns_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 12345)
    BlockCache(None, mib=1).put("a", b"1")
    assert list(tmp_path.rglob("*.block")) == []


def test_many_writers_at_once_leave_whole_blocks(tmp_path):
    length = MIB // 8

    def work(number: int) -> None:
        cache = BlockCache(str(tmp_path), mib=1)
        for turn in range(40):
            name = str((number + turn) % 12)
            data = cache.get(name, length)
            wrong.extend([name] if data not in (None, name[-1].encode() * length) else [])
            cache.put(name, name[-1].encode() * length)

    wrong: list[str] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(tmp_path.rglob("*.part")) == []
    assert len(list(tmp_path.rglob("*.block"))) > 0


# -- files that change, fail or are not there --------------------------------------------------------------------------


def test_an_object_that_changes_while_it_is_read_is_refused_and_may_be_tried_again(s3, limits):
    uri = s3.bucket("changing") + "/a.bin"
    s3.put(uri, noise(BLOCK + 10))
    file = RemoteFile(uri, limits)
    file.read(10)
    s3.put(uri, noise(BLOCK + 10, seed=1))
    file.seek(BLOCK)
    found = refusal(lambda: file.read(10))
    assert (found.status, found.reason, found.retryable) == ("missing", "changed", True)


def test_a_change_is_noticed_where_no_version_can_be_asked_for(memory, limits):
    memory.pipe("/films/a.bin", noise(BLOCK + 10))
    file = RemoteFile("memory://films/a.bin", limits)
    file.read(10)
    memory.pipe("/films/a.bin", noise(BLOCK + 10, seed=1))
    file.seek(BLOCK)
    assert refusal(lambda: file.read(10)).reason == "changed"


def test_a_recording_that_changes_while_it_is_demuxed_is_refused_and_the_next_one_is_not(s3, tmp_path):
    limits = Limits(cache_mib=0)
    bucket = s3.bucket("changing-recording")
    with wave.open(str(tmp_path / "a.wav"), "wb") as recording:
        recording.setparams((2, 2, 48_000, 0, "NONE", ""))
        recording.writeframes(bytes(3 * BLOCK))
    content = (tmp_path / "a.wav").read_bytes()
    s3.put(f"{bucket}/a.wav", content)
    s3.put(f"{bucket}/b.wav", content)
    with open_container(f"{bucket}/a.wav", limits) as container:
        s3.put(f"{bucket}/a.wav", content[:-1])
        assert refusal(lambda: list(container.demux())).reason == "changed"
    with open_container(f"{bucket}/b.wav", limits) as container:
        assert sum(packet.size for packet in container.demux()) == 3 * BLOCK


def test_an_object_that_is_not_there_is_missing(s3, limits):
    bucket = s3.bucket("empty")
    for uri in (f"{bucket}/gone.mp4", "s3://no-such-bucket/gone.mp4"):
        for found in (refusal(lambda uri=uri: open_container(uri, limits)), stat(uri, limits)):
            assert (found.status, found.reason, found.retryable) == ("missing", "not_found", True)


def test_a_folder_of_objects_is_not_a_file(s3, limits):
    bucket = s3.bucket("folders")
    s3.put(f"{bucket}/folder/a.mp4", b"1")
    for uri in (bucket, f"{bucket}/folder"):
        for found in (refusal(lambda uri=uri: open_container(uri, limits)), stat(uri, limits)):
            assert (found.status, found.reason) == ("unsupported", "not_a_file")


def test_an_object_without_bytes_is_empty_and_one_above_the_limit_too_large(s3, limits):
    bucket = s3.bucket("sizes")
    s3.put(f"{bucket}/empty.mp4", b"")
    s3.put(f"{bucket}/large.mp4", bytes(1001))
    found = refusal(lambda: open_container(f"{bucket}/empty.mp4", limits))
    assert (found.status, found.reason) == ("corrupt", "empty")
    small = Limits(cache_mib=0, max_bytes=1000)
    found = refusal(lambda: open_container(f"{bucket}/large.mp4", small))
    assert (found.status, found.reason) == ("too_large", "too_many_bytes")
    assert "1001" in found.detail
    assert "1000" in found.detail


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no film at all" * 99, "not_media"), (b"\0\0\0\x18ftypisom" + bytes(99), "no_index")]
)
def test_an_object_that_is_no_film_is_corrupt(s3, limits, content, reason):
    uri = s3.bucket(reason.replace("_", "-")) + "/a.mp4"
    s3.put(uri, content)
    found = refusal(lambda: open_container(uri, limits))
    assert (found.status, found.reason) == ("corrupt", reason)


def test_the_state_of_an_object_comes_from_its_head(s3, limits, fetched):
    uri = s3.bucket("state") + "/a.bin"
    s3.put(uri, b"hello")
    state = stat(uri, limits)
    # The MD5 of "hello".
    assert state == FileState(5, state.modified_at, "5d41402abc4b2a76b9719d911017c592")
    assert state.modified_at.utcoffset().total_seconds() == 0
    assert fetched == []
    s3.put(uri, b"hallo")
    assert stat(uri, limits).version != state.version


# -- credentials -------------------------------------------------------------------------------------------------------


def test_refused_credentials_are_told_without_them(s3, limits, monkeypatch):
    import requests
    import s3fs

    uri = s3.bucket("guarded") + "/a.mp4"
    s3.put(uri, b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3fs.S3FileSystem.clear_instance_cache()
    requests.post(f"{s3.endpoint}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        found = refusal(lambda: open_container(uri, limits))
    finally:
        requests.post(f"{s3.endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)
        s3fs.S3FileSystem.clear_instance_cache()
    assert (found.status, found.reason, found.retryable) == ("missing", "unreadable", True)
    assert found.detail == "It cannot be read: PermissionError (403)."


def test_a_store_that_does_not_answer_is_told_by_the_class_of_its_error(s3, limits, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    found = stat("s3://films/a.mp4", limits)
    s3fs.S3FileSystem.clear_instance_cache()
    assert (found.status, found.reason, found.retryable) == ("missing", "unreadable", True)
    assert found.detail == "It cannot be read: EndpointConnectionError."


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@films/a.mp4",
        "s3://AKIAEXAMPLE:wJalrXUtnFEMI@films/a.mp4",
        f"https://user:{SECRET}@films.example/a.mp4",
        f"file://user:{SECRET}@host/a.mp4",
        f"concat:http://user:{SECRET}@host/a.ts|b.ts",
        f"https://films.example/a.mp4?part=1&X-Amz-Signature={SECRET}&x=2",
        f"https://films.example/a.mp4?sig={SECRET}",
        f"https://films.example/a.mp4?Token={SECRET}#t=1",
        f"abfs://films:{SECRET}@account.dfs.core.windows.net/a.mp4",
        f"abfs://films@account.dfs.core.windows.net/a.mp4?se=2030&sig={SECRET}",
    ],
)
def test_a_uri_with_credentials_is_refused_and_shown_without_them(uri, limits):
    found = stat(uri, limits)
    assert (found.status, found.reason) == ("unsupported", "credentials_in_uri")
    assert "***" in found.detail
    assert SECRET not in found.detail
    assert "wJalr" not in found.detail
    assert refusal(lambda: open_container(uri, limits)).detail == found.detail


@pytest.mark.parametrize(
    "uri",
    [
        "/films/user:secret@home/a.mp4",
        "/films/what?token=1.mp4",
        "s3://films/by@somebody/12:30.mp4",
        "s3://films/what?.mp4",
        "https://films.example:8080/by@somebody/a.mp4?part=1&design=2",
        "abfs://films@account.dfs.core.windows.net/a.mp4",
    ],
)
def test_harmless_uris_stay_as_they_are(uri):
    assert redacted(uri) == uri


def test_the_code_of_an_error_is_never_a_sentence():
    error = OSError("the key wJalrXUtnFEMI was refused")
    error.code = "the key wJalrXUtnFEMI was refused"
    assert class_and_code(error) == "OSError"


# -- protocols ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1/a.mp4", "concat:a.ts|b.ts", "pipe:0", "subfile:,,start,0,end,9,,:a.mp4", "data:text/plain,a"],
)
def test_a_protocol_that_is_not_in_the_setting_is_refused(uri):
    for found in (refusal(lambda: open_container(uri, Limits())), stat(uri, Limits())):
        assert (found.status, found.reason, found.retryable) == ("unsupported", "protocol", False)


@pytest.mark.parametrize("uri", ["concat://a.ts|b.ts", "pipe://0", "subfile://a.mp4", "crypto://a.mp4", "concat:a.ts"])
def test_protocols_of_libav_stay_refused_even_when_they_are_allowed(uri):
    allowed = Limits(protocols=("concat", "pipe", "subfile", "crypto"), cache_mib=0)
    assert refusal(lambda: open_container(uri, allowed)).reason == "protocol"


def test_local_files_too_can_be_left_out_of_the_setting(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"1")
    for uri in (str(path), path.as_uri()):
        assert stat(uri, Limits(protocols=("s3",))).reason == "protocol"


def test_a_chain_of_places_is_the_name_of_one_object(s3, memory, limits):
    memory.pipe("/secret.mp4", b"1")
    bucket = s3.bucket("chains")
    assert stat(f"{bucket}/a.zip::memory://secret.mp4", limits).reason == "not_found"


def test_a_store_without_its_library_names_the_extra(monkeypatch):
    def absent(protocol):
        raise ImportError(protocol)

    monkeypatch.setattr("fsspec.get_filesystem_class", absent)
    for uri, extra in (("gs://films/a.mp4", "gcs"), ("abfss://films@account/a.mp4", "azure"), ("s3a://films/a", "s3")):
        with pytest.raises(MissingExtraError, match=rf"avrec-spark\[{extra}\]"):
            stat(uri, Limits())
