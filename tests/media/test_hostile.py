"""No input takes down the decoder, none is lost, and each ends with a status and a reason that are true."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits, Request
from avrec_spark.media.sound import SoundReader
from avrec_spark.media.watchdog import Decoder
from tests.media import hostile

STATUSES = {"ok", "partial", "corrupt", "unsupported", "missing", "timeout", "too_large"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return hostile.encode(folder / "plain.mp4", seconds=4)


@pytest.fixture(scope="module")
def decoder():
    with Decoder(Limits(sample_rate=16_000, timeout_seconds=20)) as started:
        yield started


def test_every_file_of_the_hostile_corpus_ends_with_a_true_status_and_reason(folder, clip, decoder):
    expected = hostile.corpus(folder, clip)

    found = {path: decoder.decode(Request(str(path))) for path in expected}

    wrong = {
        path.name: (media.status, media.reason, media.detail)
        for path, media in found.items()
        if media.status not in expected[path][0] or media.reason not in expected[path][1]
    }
    assert wrong == {}
    assert all(media.detail for media in found.values() if media.status != "ok")


def test_odd_files_are_described_as_what_they_are(folder, decoder):
    def info(name: str):
        return decoder.decode(Request(str(folder / name))).info

    assert (info("variable.mkv").variable_frame_rate, info("one-key-frame.mp4").variable_frame_rate) == (True, False)
    assert (info("odd-size.mkv").width, info("odd-size.mkv").height) == (161, 121)
    assert info("ten-bit.mkv").bit_depth == 10
    assert info("surround.mp4").channels == 6
    assert info("silence.mp4").silence_share == 1.0 and info("silence.mp4").loudness is None
    assert (info("wide-pixels.mp4").width, info("wide-pixels.mp4").height) == (320, 120)
    assert info("one-key-frame.mp4").gop == 40


@pytest.fixture(scope="module")
def real_clips(folder: Path, data_folder: Path) -> list[Path]:
    """The first second of the real clips that `make data` brings."""
    clips = sorted((data_folder / "clips").glob("*.mp4"))
    assert clips
    return [hostile.shortened(clip, folder / f"short-{clip.name}", 1.0) for clip in clips]


def test_three_hundred_damaged_real_clips_all_get_an_answer(folder, real_clips, decoder):
    found = [decoder.decode(Request(str(path))) for path in hostile.mutants(real_clips, 300, folder)]

    assert len(found) == 300
    assert {media.status for media in found} <= STATUSES
    assert all(media.reason and media.detail for media in found if media.status != "ok")
    statuses = Counter(media.status for media in found)
    # A few bytes cost a frame or the whole: neither must hide the other.
    assert statuses["ok"] + statuses["partial"] > 100 and statuses["corrupt"] > 0


def test_memory_stays_below_the_limit_through_all_of_it(decoder):
    decoder.decode(Request("any"))
    status = Path(f"/proc/{decoder.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert peak / 1024 < decoder.limits.max_memory_mib


def test_frames_that_need_more_memory_than_allowed_are_too_large_and_the_next_file_is_read(folder, clip):
    # A frame takes 50 MB, and a decoder holds several.
    large = hostile.encode(folder / "large.mp4", seconds=0.4, size=(7680, 4320), fps=10, layout=None)

    with Decoder(Limits(max_memory_mib=256, sample_rate=16_000, timeout_seconds=60)) as decoder:
        crowded = decoder.decode(Request(str(large)))
        after = decoder.decode(Request(str(clip)))

    assert (crowded.status, crowded.reason, crowded.retryable) == ("too_large", "out_of_memory", False)
    assert "more than the 256 MiB of memory" in crowded.detail
    assert after.status == "ok"


def test_a_file_that_shrinks_while_it_is_read_is_partial(folder, monkeypatch):
    path = hostile.encode(folder / "shrinking.mkv", seconds=60, size=(320, 240), gop=10)
    size, take = path.stat().st_size, SoundReader.take

    def shrinking(reader: SoundReader, packet) -> None:
        if path.stat().st_size == size:
            os.truncate(path, size // 3)
        take(reader, packet)

    monkeypatch.setattr(SoundReader, "take", shrinking)
    media = decode(Request(str(path)), Limits(sample_rate=16_000))

    assert (media.status, media.reason) == ("partial", "truncated")
    assert 0 < media.info.duration < 60


@pytest.mark.parametrize("prefix", ["concat:", "pipe:", "subfile:,,start,0,end,0,,:", "http://127.0.0.1/", "data:,"])
def test_no_protocol_leads_anywhere_unless_it_is_allowed(clip, decoder, prefix):
    media = decoder.decode(Request(f"{prefix}{clip}"))

    assert (media.status, media.reason, media.retryable) == ("unsupported", "protocol", False)
