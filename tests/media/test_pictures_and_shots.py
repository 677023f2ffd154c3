from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avrec_spark.media.frames import choose
from avrec_spark.media.pictures import MAX_THUMBNAIL_BYTES, Scaler, jpeg, screen, square, thumbnail
from avrec_spark.media.records import NEEDS, Limits, Shot
from avrec_spark.media.span import Span
from avrec_spark.media.timing import FrameRateMeter
from avrec_spark.media.video import Pictures, VideoReader
from tests.media import assembled
from tests.media.assembled import RATE

WHOLE = Span(0.0, math.inf)


def frame_of(picture: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, "rgb24")


def read(path: Path, span: Span = WHOLE, needs: frozenset[str] = frozenset(NEEDS), **limits: object) -> Pictures:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        reader = VideoReader(stream, Limits(**limits), needs, span, 0.0)
        for packet in container.demux(stream):
            if packet.size:
                reader.take(packet)
        return reader.finish()


def a_film(path: Path, seconds: float, encoding: str, takes: int = 1) -> Path:
    random = np.random.default_rng(0)
    pieces = [assembled.drawn(seed)(seconds / takes, random) for seed in range(takes)]
    return assembled.Film([picture for piece in pieces for picture in piece], []).write(path, encoding)


def test_the_square_is_the_centre_of_the_picture():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255  # the middle third is white: the centre square exactly

    cut = square(Scaler(192).picture(frame_of(picture)))

    assert cut.shape == (224, 224, 3)
    assert cut[:, 10:-10].min() > 245


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 2000), (2000, 16), (1, 1), (2, 32_000)])
def test_pictures_of_any_shape_give_a_square_and_a_thumbnail(width, height):
    picture = Scaler(96).picture(frame_of(np.full((height, width, 3), 90, np.uint8)))

    assert square(picture).shape == (224, 224, 3)
    assert thumbnail(picture, 96).shape[1] == 96
    assert picture.nbytes < 64 * 2**20


def test_wide_pixels_are_shown_wide():
    picture = Scaler(192, pixel_aspect=64 / 45).picture(frame_of(np.zeros((576, 720, 3), np.uint8)))

    # PAL DVD: 720 x 576 pixels, shown 16 : 9.
    assert thumbnail(picture, 192).shape == (108, 192, 3)


def test_a_turn_sets_square_and_thumbnail_upright():
    picture = np.zeros((224, 400, 3), np.uint8)
    picture[:, 300:] = 255  # the right edge comes to lie on top after a counter-clockwise quarter turn

    upright = thumbnail(picture, 112, turns=1)

    assert upright.shape == (200, 112, 3)
    assert upright[:40].min() > 245 and upright[60:].max() < 10


@pytest.mark.parametrize(("width", "expected"), [(1920, 960), (960, 960), (640, 640)])
def test_a_picture_to_read_in_is_as_wide_as_the_frame_up_to_960(width, expected):
    picture = Scaler(192, readable=True).picture(frame_of(np.zeros((width * 9 // 16, width, 3), np.uint8)))

    assert screen(picture).shape == (expected * 9 // 16, expected, 3)


def test_a_thumbnail_of_noise_still_fits_its_limit():
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3)).astype(np.uint8)

    data = jpeg(noise)

    assert len(data) <= MAX_THUMBNAIL_BYTES
    height, width, _ = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
    assert width / height == pytest.approx(1280 / 720, rel=0.01)


def test_every_shot_gets_a_frame_before_a_long_one_gets_two():
    shots = [Shot(0.0, 20.0, 10.0, b""), Shot(20.0, 21.0, 20.0, b"", "cut"), Shot(21.0, 22.0, 21.0, b"", "cut")]
    times = [1.0, 6.0, 11.0, 16.0, 20.2, 21.2]

    # The long shot's middle is at 10 s.
    assert choose(times, shots, 3) == [2, 4, 5]


def test_where_shots_are_more_than_frames_the_longest_that_differ_are_shown():
    colours = np.eye(4, dtype=np.float32)
    shots = [
        Shot(start, start + long, start, b"", "cut", colours=colours[colour])
        for start, long, colour in ((0.0, 9.0, 0), (9.0, 1.0, 1), (10.0, 8.0, 0), (18.0, 5.0, 2))
    ]

    assert choose([4.0, 9.5, 14.0, 20.0], shots, 2) == [0, 3]


def test_frames_of_a_film_cover_its_takes(tmp_path):
    taken = read(a_film(tmp_path / "film.mp4", 16.0, "a key frame every second", takes=4), max_key_frames=4)

    assert sorted(int(time // 4) for time in taken.frames.times) == [0, 1, 2, 3]


def test_frames_of_a_clip_with_one_key_frame_come_from_its_whole_length(tmp_path):
    taken = read(a_film(tmp_path / "film.mp4", 8.0, "one key frame"), max_key_frames=4)

    assert len(taken.frames) == 4
    assert taken.frames.times == pytest.approx([1.0, 3.0, 5.0, 7.0], abs=0.6)


@pytest.mark.parametrize("encoding", ["one key frame", "a key frame every second"])
def test_pairs_for_motion_lie_a_moment_apart_all_over_the_film(encoding, tmp_path):
    motion = read(a_film(tmp_path / "film.mp4", 12.0, encoding), max_key_frames=6).motion

    assert motion.pairs.shape[1:] == (2, 90, 160)
    assert 4 <= len(motion) <= 6
    assert all(0.1 <= seconds <= 0.25 for seconds in motion.seconds)
    assert motion.times[0] < 2.5 and motion.times[-1] > 8.0


def test_the_second_picture_of_a_pair_is_what_was_shown_then(tmp_path):
    take = assembled.drawn(0)(8.0, np.random.default_rng(0))
    path = assembled.Film(take, []).write(tmp_path / "film.mp4", "a key frame every second")

    motion = read(path, max_key_frames=4).motion

    for (_, second), time, seconds in zip(motion.pairs, motion.times, motion.seconds, strict=True):
        shown = cv2.cvtColor(cv2.resize(take[round((time + seconds) * RATE)], (160, 90)), cv2.COLOR_RGB2GRAY)
        assert np.abs(second.astype(int) - shown).mean() < 6


def test_what_is_not_needed_is_neither_made_nor_decoded(tmp_path):
    path = a_film(tmp_path / "film.mp4", 12.0, "a key frame every second")

    taken = read(path, needs=frozenset({"frames"}))

    assert (len(taken.motion), len(taken.screen)) == (0, 0)
    assert taken.decoded == taken.key_frames == 12


def test_screen_pictures_are_taken_at_the_times_of_the_frames(tmp_path):
    taken = read(a_film(tmp_path / "film.mp4", 6.0, "a key frame every second"), max_key_frames=2)

    assert [picture.shape for picture in taken.screen.pictures] == [(224, 398, 3)] * 2  # the film is 320 x 180
    assert taken.screen.times.tolist() == taken.frames.times.tolist()


def test_a_span_counts_its_own_packets_and_shows_its_own_frames(tmp_path):
    path = a_film(tmp_path / "film.mp4", 12.0, "a key frame every second")

    taken = read(path, Span(4.0, 8.0), max_key_frames=2)

    assert (taken.packets, taken.key_frames) == (100, 4)
    assert all(4.0 <= time < 8.0 for time in taken.frames.times)


def test_a_span_without_a_key_frame_shows_the_one_before_it(tmp_path):
    still = assembled.drawn(0)(0.1, np.random.default_rng(0))[0]
    path = assembled.Film([still] * (70 * RATE), []).write(tmp_path / "film.mp4", "one key frame")

    taken = read(path, Span(62.0, 70.0))

    assert taken.frames.times.tolist() == [62.0]
    assert [(shot.start, shot.transition) for shot in taken.shots] == [(62.0, "range")]


def test_black_key_frames_are_counted(tmp_path):
    black = [np.full((180, 320, 3), 3, np.uint8)] * (3 * RATE)
    frames = [*black, *assembled.drawn(0)(5.0, np.random.default_rng(0))]
    path = assembled.Film(frames, []).write(tmp_path / "film.mp4", "a key frame every second")

    taken = read(path)

    assert (taken.key_frames, taken.black_frames) == (8, 3)


def test_where_every_frame_is_a_key_frame_not_all_are_decoded(tmp_path):
    frames = assembled.drawn(0)(6.0, np.random.default_rng(0))
    path = assembled.write(tmp_path / "film.mp4", frames, "libx264", {"g": "1", "preset": "ultrafast"})

    taken = read(path, needs=frozenset({"frames"}))

    assert taken.key_frames == 150
    assert taken.decoded <= 150 / 4 + 1


def meter_of(stamps: list[int], unit: Fraction) -> FrameRateMeter:
    meter = FrameRateMeter(float(unit))
    for stamp in stamps:
        meter.add(stamp)
    return meter


def test_a_clock_of_milliseconds_does_not_make_a_rate_variable():
    assert meter_of([round(n * 1000 / 30) for n in range(90)], Fraction(1, 1000)).variable() is False


def test_one_odd_last_frame_does_not_make_a_rate_variable():
    assert meter_of([*range(0, 9000, 100), 9700], Fraction(1, 2500)).variable() is False


def test_frames_that_are_left_out_make_a_rate_variable():
    assert meter_of([n for n in range(300) if n % 7], Fraction(1, 25)).variable() is True


def test_the_rate_of_two_frames_is_unknown():
    assert meter_of([0, 1], Fraction(1, 25)).variable() is None
