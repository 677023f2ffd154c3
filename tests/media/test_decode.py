from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avrec_spark.media.decode import decode as decode_request
from avrec_spark.media.records import DecodedMedia, Limits, Request

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 40), (30, 40, 200)


def decode(path: str, limits: Limits) -> DecodedMedia:
    return decode_request(Request(path, frozenset({"frames", "sound"})), limits)


def _colours(media: DecodedMedia) -> list[str]:
    """The strongest channel of each frame, as a letter."""
    return ["RGB"[int(np.argmax(frame.mean(axis=(0, 1))))] for frame in media.frames.pictures]


def test_a_clip_is_described_by_what_it_was_made_of(make_clip, limits):
    media = decode(str(make_clip(seconds=4, gop=20, tone=1000.0)), limits)

    assert (media.status, media.reason, media.retryable) == ("ok", None, False)
    info = media.info
    assert (info.width, info.height, info.frame_rate) == (160, 120, 20.0)
    assert (info.video_codec, info.audio_codec, info.sample_rate, info.channels) == ("h264", "aac", 44_100, 2)
    assert info.gop == 20
    assert info.duration == pytest.approx(4.0, abs=0.1)
    # A sine of 1 kHz and amplitude .5 has the power .125 in each of two channels; K-weighting adds what -0.691 takes.
    assert info.loudness == pytest.approx(-6.0, abs=0.2)
    assert (info.silence_share, info.black_share, info.variable_frame_rate, info.bit_depth) == (0.0, 0.0, False, 8)


def test_key_frames_are_found_where_the_encoder_put_them(make_clip, limits):
    media = decode(str(make_clip(seconds=4, gop=20)), limits)

    assert media.frames.times.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-3)
    assert media.frames_decoded == 4
    assert media.frames.pictures.shape == (4, 224, 224, 3) and media.frames.pictures.dtype == np.uint8


def test_of_many_key_frames_only_so_many_are_handed_out_as_asked_for(make_clip):
    media = decode(str(make_clip(seconds=6, gop=2, tone=None)), Limits(max_key_frames=3))

    assert len(media.frames) == 3
    # From all of the length: one from each third of it.
    assert [int(time // 2) for time in media.frames.times] == [0, 1, 2]


def test_a_clip_with_a_single_key_frame_still_gives_frames_from_all_its_length(make_clip, limits):
    media = decode(str(make_clip(seconds=4, gop=1000)), limits)

    assert media.info.gop == 80
    assert len(media.frames) == 8
    assert np.diff(media.frames.times).tolist() == pytest.approx([0.5] * 7, abs=0.16)
    assert media.frames.times[0] < 0.5 and media.frames.times[-1] > 3.4


def test_a_still_picture_as_a_film_of_one_frame_gives_that_frame(tmp_path, limits):
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), GREEN, np.uint8), "rgb24")
        container.mux(video.encode(frame))
        container.mux(video.encode(None))

    media = decode(str(path), limits)

    assert media.status == "ok" and _colours(media) == ["G"] and media.frames.times.tolist() == [0.0]


def test_frames_show_the_colours_of_their_time(make_clip, limits):
    media = decode(str(make_clip(colours=(RED, GREEN, BLUE, RED), seconds=4, gop=20)), limits)

    assert _colours(media) == ["R", "G", "B", "R"]
    np.testing.assert_allclose(media.frames.pictures[0][100, 0], RED, atol=16)


def test_a_hard_cut_begins_a_shot_with_its_own_thumbnail(make_clip, limits):
    media = decode(str(make_clip(colours=(RED, BLUE), seconds=6, gop=20)), limits)

    assert [(shot.start, shot.end) for shot in media.shots] == [
        (0.0, pytest.approx(3.0, abs=0.01)),
        (pytest.approx(3.0, abs=0.01), pytest.approx(6.0, abs=0.1)),
    ]
    for shot, strongest in zip(media.shots, (2, 0), strict=True):  # OpenCV reads BGR
        picture = cv2.imdecode(np.frombuffer(shot.thumbnail, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (72, 96, 3)
        assert np.argmax(picture.mean(axis=(0, 1))) == strongest
        assert shot.start <= shot.key_frame_time <= shot.end


def test_audio_becomes_mono_at_the_wanted_rate_and_keeps_its_pitch(make_clip, limits):
    audio = decode(str(make_clip(seconds=4, tone=1000.0)), limits).sound.samples

    assert audio.dtype == np.float32 and audio.ndim == 1
    assert len(audio) / 16_000 == pytest.approx(4.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(audio[16_000:32_000]))
    assert np.argmax(spectrum) == 1000


def test_audio_is_decoded_no_further_than_asked_for(make_clip):
    media = decode(str(make_clip(seconds=4)), Limits(max_seconds=1.5, sample_rate=8000))

    assert len(media.sound) == 12_000
    assert media.seconds_decoded == 1.5
    assert (media.status, media.reason) == ("partial", "too_long")


@pytest.mark.parametrize("name", ["sound.m4a", "sound.flac"])
def test_a_file_with_sound_only_is_ok_and_has_no_frames(make_clip, limits, name):
    media = decode(str(make_clip(name, colours=())), limits)

    assert (media.status, media.info.width, media.info.video_codec) == ("ok", None, None)
    assert media.frames.pictures.shape == (0, 224, 224, 3) and media.shots == []
    assert media.seconds_decoded == pytest.approx(4.0, abs=0.1)


def test_a_file_with_pictures_only_is_ok_and_has_no_audio(make_clip, limits):
    media = decode(str(make_clip("silent.mkv", tone=None)), limits)

    assert (media.status, media.info.audio_codec, media.info.loudness) == ("ok", None, None)
    assert media.sound.samples.shape == (0,) and len(media.frames) == 8


def test_a_rotated_recording_is_set_upright(make_clip, limits):
    plain = decode(str(make_clip("plain.mp4", size=(160, 80))), limits)
    turned = decode(str(make_clip("turned.mp4", size=(160, 80), rotation=90)), limits)

    assert (turned.info.width, turned.info.height) == (80, 160)
    picture = cv2.imdecode(np.frombuffer(turned.shots[0].thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (192, 96, 3)
    np.testing.assert_allclose(turned.frames.pictures[0], np.rot90(plain.frames.pictures[0]), atol=12)


def test_a_file_that_was_cut_off_is_partial_and_says_where_it_ends(make_clip, limits):
    path = make_clip(seconds=8, gop=20)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])

    media = decode(str(path), limits)

    assert (media.status, media.reason) == ("partial", "truncated")
    assert "of the 8.0 s that it declares" in media.detail
    assert len(media.frames) > 0 and 0 < media.info.duration < 7


def test_an_upload_that_broke_off_before_its_index_is_corrupt(make_clip, limits):
    path = make_clip(seconds=4, faststart=False)
    path.write_bytes(path.read_bytes()[:-8000])

    media = decode(str(path), limits)

    assert (media.status, media.reason) == ("corrupt", "no_index")


def test_a_track_without_a_decoder_leaves_the_other_and_is_named(make_clip, limits):
    path = make_clip(seconds=2)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))

    media = decode(str(path), limits)

    assert (media.status, media.reason) == ("partial", "video_failed")
    assert len(media.frames) == 0 and media.seconds_decoded == pytest.approx(2.0, abs=0.1)


def test_a_file_of_which_no_track_has_a_decoder_is_unsupported(make_clip, limits):
    path = make_clip(seconds=2, tone=None)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))

    media = decode(str(path), limits)

    assert (media.status, media.reason) == ("unsupported", "codec")


def test_a_sound_track_without_a_decoder_leaves_the_pictures(make_clip, limits):
    path = make_clip("clip.mkv", seconds=4, gop=20)
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))

    media = decode(str(path), limits)

    assert (media.status, media.reason) == ("partial", "audio_failed")
    assert len(media.frames) == 4 and media.sound.samples.shape == (0,)


def test_damage_in_the_middle_is_partial_or_ok_and_never_raises(make_clip, limits):
    path = make_clip("clip.mkv", seconds=8, gop=20)
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    for position in random.integers(len(data) // 4, len(data), 400):
        data[position] = random.integers(256)
    path.write_bytes(data)

    media = decode(str(path), limits)

    assert media.status in {"ok", "partial"} and len(media.frames)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"Dear diary,\n" * 500, "not_media"), (bytes(5000), "not_media")]
)
def test_a_file_that_is_no_media_is_corrupt_with_its_reason(tmp_path, limits, content, reason):
    path = tmp_path / "film.mp4"
    path.write_bytes(content)

    media = decode(str(path), limits)

    assert (media.status, media.reason, media.retryable) == ("corrupt", reason, False)
    assert media.frames.pictures.shape == (0, 224, 224, 3) and media.sound.samples.shape == (0,)


def test_a_playlist_cannot_lead_to_other_files(make_clip, tmp_path, limits):
    clip = make_clip()
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{clip}\n#EXT-X-ENDLIST\n")

    media = decode(str(playlist), limits)

    assert media.status in {"unsupported", "corrupt"} and not len(media.frames)


def test_a_missing_file_may_be_worth_a_retry(tmp_path, limits):
    media = decode(str(tmp_path / "gone.mp4"), limits)

    assert (media.status, media.reason, media.retryable) == ("missing", "not_found", True)


def test_a_folder_and_a_pipe_are_refused_without_being_opened(tmp_path, limits):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)

    for path in (tmp_path, pipe):
        media = decode(str(path), limits)
        assert (media.status, media.reason) == ("unsupported", "not_a_file")


@pytest.mark.parametrize("uri", ["http://example.org/a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "file://host/a.mp4"])
def test_no_protocol_is_followed_that_is_not_allowed(limits, uri):
    media = decode(uri, limits)

    assert (media.status, media.reason) == ("unsupported", "protocol")


def test_a_file_uri_and_a_name_with_odd_characters_are_read(make_clip, limits):
    path = make_clip("小猫 100%: part #1.mp4", seconds=1)

    assert decode(str(path), limits).status == "ok"
    assert decode(path.as_uri(), limits).status == "ok"


def test_frames_above_the_pixel_limit_are_not_decoded(make_clip):
    media = decode(str(make_clip(seconds=1)), Limits(max_pixels=160 * 120 - 1))

    assert (media.status, media.reason, media.frames_decoded) == ("too_large", "too_many_pixels", 0)
    assert "160 × 120" in media.detail


def test_the_original_file_is_not_touched(make_clip, limits):
    path: Path = make_clip(seconds=1)
    before = path.read_bytes(), path.stat().st_mtime_ns
    decode(str(path), limits)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
