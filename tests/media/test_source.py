"""What may be opened, and that a file which is opened leads to no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import pytest

from avrec_spark.media.records import Limits, Refusal
from avrec_spark.media.source import open_container, stat
from avrec_spark.media.storage import FileState

ATTACKS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {url}\n",
    "list.mp4": "ffconcat version 1.0\nfile {url}\n",
    "manifest.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1">'
    "<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "image2.mp4": "%d.png",
}


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return Limits(cache_folder=str(tmp_path / "cache"), protocols=("file", "s3", "http"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """(URL, requests so far) of a server that answers each request with a film."""
    requests: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            content = (tmp_path / "web.mp4").read_bytes() if (tmp_path / "web.mp4").exists() else b"content"
            first, last = 0, len(content) - 1
            if asked := self.headers.get("Range"):
                bounds = asked.removeprefix("bytes=").split("-")
                first, last = int(bounds[0]), min(last, int(bounds[1] or last))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[first : last + 1])

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()


def refusal(act) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


# -- what may be opened ------------------------------------------------------------------------------------------------


def test_a_path_and_its_uri_open_the_same_film(make_clip, limits):
    clip = make_clip("a film.mp4", seconds=1.0)
    for uri in (str(clip), clip.as_uri()):
        with open_container(uri, limits) as container:
            assert container.streams.video[0].width == 160


def test_the_state_of_a_local_file_is_that_of_its_directory_entry(tmp_path, limits):
    path = tmp_path / "a.bin"
    path.write_bytes(b"123")
    os.utime(path, (1_000_000_000, 1_000_000_000.25))
    assert stat(str(path), limits) == FileState(3, datetime(2001, 9, 9, 1, 46, 40, 250_000, tzinfo=UTC), None)


def test_pipes_folders_and_devices_are_never_opened(tmp_path, limits):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", tmp_path, Path(os.devnull)):
        for found in (refusal(lambda path=path: open_container(str(path), limits)), stat(str(path), limits)):
            assert (found.status, found.reason) == ("unsupported", "not_a_file")


@pytest.mark.parametrize("name", ["gone.mp4", "link.mp4", "file.mp4/inside.mp4", "nul\0.mp4"])
def test_what_is_not_there_is_missing(tmp_path, limits, name):
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file.mp4").write_bytes(b"1")
    for found in (refusal(lambda: open_container(str(tmp_path / name), limits)), stat(str(tmp_path / name), limits)):
        assert (found.status, found.reason) == ("missing", "not_found")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path, limits):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"1")
    path.chmod(0)
    found = refusal(lambda: open_container(str(path), limits))
    assert (found.status, found.reason, found.retryable) == ("missing", "unreadable", True)


def test_an_empty_file_and_one_above_the_limit_are_told_apart(tmp_path, limits):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "large.mp4").write_bytes(bytes(1001))
    found = refusal(lambda: open_container(str(tmp_path / "empty.mp4"), limits))
    assert (found.status, found.reason) == ("corrupt", "empty")
    found = refusal(lambda: open_container(str(tmp_path / "large.mp4"), Limits(max_bytes=1000)))
    assert (found.status, found.reason) == ("too_large", "too_many_bytes")


def test_a_file_of_another_host_is_refused(limits):
    assert refusal(lambda: open_container("file://elsewhere/a.mp4", limits)).reason == "protocol"


# -- what an opened file may lead to -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_list_of_other_files_is_no_film_and_nothing_is_asked_of_the_network(
    tmp_path, limits, web, make_clip, request, name, place
):
    url, requests = web
    other = make_clip("0.ts", seconds=1.0)
    for number, target in enumerate((f"{url}/a.ts", str(other))):
        content = ATTACKS[name].format(url=target)
        if place == "local":
            uri = str(tmp_path / name)
            Path(uri).write_text(content)
        else:
            store = request.getfixturevalue("s3")
            uri = store.bucket(f"lists-{name.replace('.', '-')}-{number}") + f"/{name}"
            store.put(uri, content.encode())
        found = refusal(lambda uri=uri: open_container(uri, limits))
        assert found.reason in ("not_media", "format")
    assert requests == []


def test_libav_would_follow_such_a_list(tmp_path, web):
    url, requests = web
    path = tmp_path / "list.ffconcat"
    path.write_text(f"ffconcat version 1.0\nfile {url}/a.ts\n")
    with pytest.raises(av.error.FFmpegError):
        av.open(str(path), options={"safe": "0", "protocol_whitelist": "file,http,tcp"})
    assert requests != []


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_film_whose_pictures_lie_in_another_file_shows_none_of_them(tmp_path, limits, make_clip, request, place):
    target = make_clip("target.mov", seconds=1.0, tone=None, faststart=False)
    attack = tmp_path / "attack.mov"
    attack.write_bytes(with_pictures_of(target))
    assert pictures(av.open(str(attack), options={"enable_drefs": "1", "use_absolute_path": "1"})) == 20
    uri = str(attack)
    if place == "s3":
        store = request.getfixturevalue("s3")
        uri = store.bucket("references") + "/attack.mov"
        store.put(uri, attack.read_bytes())
    with open_container(uri, limits) as container:
        assert pictures(container) == 0


def pictures(container: av.container.InputContainer) -> int:
    try:
        return sum(1 for _ in container.decode(video=0))
    except av.error.FFmpegError:
        return 0


def with_pictures_of(target: Path) -> bytes:
    """The clip `target` with its media wiped out and a Macintosh alias (QuickTime's `dref`) to `target` instead."""
    clip = bytearray(target.read_bytes())
    media = clip.index(b"mdat")
    length = int.from_bytes(clip[media - 4 : media], "big") - 8
    clip[media + 4 : media + 4 + length] = bytes(length)
    path = str(target).encode()
    # Fields that libav skips, but for the count of levels (from, to) and the tagged absolute path at the end.
    record = bytes(10 + 28 + 12 + 64 + 16) + b"\0\1\0\1" + bytes(16)
    record += b"\0\2" + len(path).to_bytes(2, "big") + path + b"\0" * (len(path) % 2) + b"\xff\xff\0\0"
    entry = (12 + len(record)).to_bytes(4, "big") + b"alis" + bytes(4) + record
    at = clip.index(b"dref") + 12
    old = int.from_bytes(clip[at : at + 4], "big")
    clip[at : at + old] = entry
    # The index lies behind the media, so that only the sizes of the boxes around change.
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = clip.index(box) - 4
        size = int.from_bytes(clip[place : place + 4], "big") + len(entry) - old
        clip[place : place + 4] = size.to_bytes(4, "big")
    return bytes(clip)


def test_an_allowed_web_server_is_asked_by_range_and_for_the_film_only(tmp_path, limits, web, make_clip):
    make_clip("web.mp4", seconds=1.0)
    url, requests = web
    with open_container(f"{url}/film.mp4", limits) as container:
        assert pictures(container) == 20
    assert {request.split()[1] for request in requests} == {"/film.mp4"}
    assert any("bytes=0-" in request for request in requests)
