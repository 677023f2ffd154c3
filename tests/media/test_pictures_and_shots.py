from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from avrec_spark.media.pictures import MAX_THUMBNAIL_BYTES, jpeg, square, thumbnail
from avrec_spark.media.shots import find_shots

RED, BLUE = np.full((40, 60, 3), (200, 30, 30), np.uint8), np.full((40, 60, 3), (30, 40, 200), np.uint8)


def test_the_square_is_the_centre_of_the_picture():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255  # the middle third is white: the centre square exactly

    cut = square(av.VideoFrame.from_ndarray(picture, "rgb24"))

    assert cut.shape == (224, 224, 3)
    assert cut[:, 10:-10].min() > 245


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 2000), (2000, 16), (1, 1)])
def test_pictures_of_any_shape_give_a_square_and_a_thumbnail(width, height):
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), "rgb24")

    assert square(frame).shape == (224, 224, 3)
    assert thumbnail(frame, 96).shape[1] == 96


def test_wide_pixels_are_shown_wide():
    frame = av.VideoFrame.from_ndarray(np.zeros((576, 720, 3), np.uint8), "rgb24")

    # PAL DVD: 720 x 576 pixels, shown 16 : 9.
    assert thumbnail(frame, 192, pixel_aspect=64 / 45).shape == (108, 192, 3)


def test_a_thumbnail_of_noise_still_fits_its_limit():
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3)).astype(np.uint8)

    data = jpeg(noise)

    assert len(data) <= MAX_THUMBNAIL_BYTES
    height, width, _ = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
    assert width / height == pytest.approx(1280 / 720, rel=0.01)


def test_shots_cover_the_clip_without_gaps():
    shots = find_shots([RED, RED, BLUE, BLUE, BLUE, RED], np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]), duration=6.0)

    assert [(shot.start, shot.end, shot.key_frame_time) for shot in shots] == [
        (0.0, 2.5, 1.5),
        (2.5, 5.5, 3.5),
        (5.5, 6.0, 5.5),
    ]


def test_a_slow_change_of_brightness_is_no_cut():
    pictures = [(RED * share).astype(np.uint8) for share in (1.0, 0.97, 0.94, 0.91)]

    assert len(find_shots(pictures, np.arange(4.0), duration=4.0)) == 1


def test_without_pictures_there_are_no_shots():
    assert find_shots([], np.empty(0), duration=10.0) == []
