"""Writing that is drawn is read back, and merged where it stays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.encoders.port import Words
from avrec_spark.encoders.screen import RapidOcrEncoder, merged, read
from avrec_spark.encoders.text import embedded
from avrec_spark.media.records import Screen

pytest.importorskip("rapidocr_onnxruntime", reason="needs the extra ocr")

CHINESE_FONTS = ("NotoSansCJK*", "NotoSerifCJK*", "SourceHanSans*", "wqy-*", "DroidSansFallback*")
BLUE = (20, 40, 90)


def _picture(*lines: str, size: float = 1.2, height: int = 200) -> NDArray[np.uint8]:
    picture = np.full((height, 640, 3), BLUE, np.uint8)
    for row, line in enumerate(lines):
        cv2.putText(picture, line, (20, 60 + 70 * row), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 230, 80), 2)
    return picture


def _screen(*pictures: NDArray[np.uint8]) -> Screen:
    return Screen(list(pictures), 10.0 * np.arange(len(pictures)))


@pytest.fixture(scope="module")
def encoder() -> RapidOcrEncoder:
    return RapidOcrEncoder(8)


def test_english_lines_are_read_from_top_to_bottom_with_time_and_confidence():
    lines = read(_picture("The quick brown fox", "jumps over 12 dogs"), 4.5)

    assert [line.text for line in lines] == ["The quick brown fox", "jumps over 12 dogs"]
    assert all(line.start == line.end == 4.5 and 0.7 <= line.confidence <= 1 for line in lines)


def test_small_writing_on_a_large_picture_is_read():
    picture = np.full((720, 1280, 3), BLUE, np.uint8)
    cv2.putText(picture, "Subscribe for more videos", (60, 680), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)

    assert [line.text for line in read(picture)] == ["Subscribe for more videos"]


def test_chinese_lines_are_read():
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts"]
    fonts = [font for folder in folders for name in CHINESE_FONTS for font in folder.rglob(name)]
    if not fonts:
        pytest.skip("needs a font with Chinese letters, such as Noto Sans CJK")
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (640, 160), BLUE)
    ImageDraw.Draw(picture).text((30, 50), "今天天气真好", (255, 255, 255), ImageFont.truetype(str(fonts[0]), 48))

    assert [line.text for line in read(np.asarray(picture))] == ["今天天气真好"]


def test_pictures_without_writing_give_a_summary_without_words_and_a_row_of_zeros(encoder):
    noise = np.random.default_rng(0).integers(0, 256, (200, 320, 3)).astype(np.uint8)
    stripes = np.full((200, 320, 3), BLUE, np.uint8)
    stripes[:, ::20] = 255
    screen = _screen(noise, stripes, np.zeros((200, 320, 3), np.uint8))

    summary = encoder.summarise([screen])[0]

    assert summary.words == [] and not summary.total.any()
    assert not encoder.encode([screen]).any()


def test_words_far_apart_on_one_height_are_two_lines_and_near_ones_one():
    picture = _picture("Monday")
    cv2.putText(picture, "Price: 20", (380, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 230, 80), 2)

    assert [line.text for line in read(picture)] == ["Monday", "Price: 20"]


def test_a_line_that_stays_is_one_entry_from_its_first_to_its_last_frame(encoder):
    title, news = _picture("Chapter one"), _picture("Chapter one", "Breaking news")

    words = encoder.summarise([_screen(title, news, title, _picture())])[0].words

    assert [(line.text, line.start, line.end) for line in words] == [
        ("Chapter one", 0.0, 20.0),
        ("Breaking news", 10.0, 10.0),
    ]


def test_a_line_that_comes_back_after_a_frame_without_it_is_a_new_entry():
    def line(time: float) -> list[Words]:
        return [Words(time, time, "Subscribe now", confidence=0.9)]

    assert [(word.start, word.end) for word in merged([line(0), [], line(2), line(3)])] == [(0, 0), (2, 3)]


def test_two_equal_lines_on_one_picture_are_two_entries():
    twice = [Words(0, 0, "Sale"), Words(0, 0, "Sale")]
    again = [Words(1, 1, "Sale"), Words(1, 1, "Sale")]

    assert [(word.start, word.end) for word in merged([twice, again])] == [(0, 1), (0, 1)]


def test_the_more_confident_reading_of_a_line_is_kept():
    readings = [[Words(0, 0, "Breakiag news", confidence=0.7)], [Words(1, 1, "Breaking news", confidence=0.9)]]

    assert merged(readings) == [Words(0, 1, "Breaking news", confidence=0.9)]


def test_merging_leaves_the_readings_as_they_are():
    first = [Words(0, 0, "Breaking news", confidence=0.7)]

    merged([first, [Words(1, 1, "Breaking news", confidence=0.9)]])

    assert first == [Words(0, 0, "Breaking news", confidence=0.7)]


def test_the_total_is_the_sum_of_the_meanings_of_the_frames(encoder):
    recipe = _picture("How to cook noodles")

    summary = encoder.summarise([_screen(recipe, recipe, _picture())])[0]

    np.testing.assert_allclose(summary.total, 2 * embedded(["How to cook noodles"])[0], atol=1e-5)
